#!/usr/bin/env bash
# Builds the emulated libraries into a folder; README.md says what for.
#   build.sh FOLDER
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
kernels="$here/../../../cuda"
out="$(mkdir -p "$1" && cd "$1" && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
flags=(-O2 -fno-strict-aliasing -std=c++17 -w -fPIC -I"$here" -I"$work")

cp "$kernels"/*.cuh "$kernels"/*.cu "$work"
cp "$here"/*.cuh "$work"
for file in "$work"/*.cu; do
  name="$(basename "$file" .cu)"
  sed -i 's/extern __shared__ __align__([0-9]*) bf16 memory\[\];/bf16 *memory = reinterpret_cast<bf16 *>(dynamic_shared);/' "$file"
  {
    # Headers outside, the rest in a namespace: files name their constants alike.
    echo '#include "emulator.h"'
    grep '^#include' "$file" || true
    echo 'namespace {'
    grep -v '^#include' "$file" | sed 's/extern "C" //'
    g++ "${flags[@]}" -include cuda_bf16.h -E -P -x c++ "$file" | tr '\n' ' ' |
      { grep -o 'extern "C" *void *[a-z0-9_]*' || true; } | sed 's/.* //' |
      sed 's/.*/bool has_& = add_kernel("&", \&&);/' # a chip's own code has none here
    echo '}'
  } >"$work/$name.cpp"
  g++ "${flags[@]}" -c "$work/$name.cpp" -o "$work/$name.o"
done
for name in emulator driver; do
  g++ "${flags[@]}" -c "$here/$name.cpp" -o "$work/$name.o"
done
g++ -shared -Wl,-soname,libcuda.so.1 -o "$out/libcuda.so.1" "$work"/*.o
g++ "${flags[@]}" -shared -o "$out/libcublasLt.so.13" "$here/cublaslt.cpp" -L"$out" -l:libcuda.so.1
