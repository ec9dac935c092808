// Memory filled with one byte: what recorded graphs have in the place of memsets.

extern "C" __global__ void fill_bytes(unsigned char *out, int value, long long count) {
  long long step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += step) {
    out[i] = static_cast<unsigned char>(value);
  }
}
