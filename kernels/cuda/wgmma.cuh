// What Hopper has beside mma.sync: matrix products of a warpgroup (four warps) that read shared
// memory and run on while the threads do other things, copies by the bulk copy engine, and barriers
// in shared memory that both report to (PTX ISA, wgmma.mma_async, cp.async.bulk.tensor, mbarrier).
//
// Matrices lie in shared memory in lines of 128 bytes; eight lines, 1024 bytes that begin at a
// multiple of 1024, are a box, within which 16-byte part i of line r is at place i ^ r.
#pragma once

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

#include <stdint.h>

#include "bulk.cuh"
#include "mma.cuh"

constexpr int WARPGROUP = 128;
constexpr int LINE_BYTES = 128;
constexpr int BOX_BYTES = 1024;

// Where part `part` of 16 bytes of a row begins in a matrix whose rows are `lines` lines long: the
// boxes of eight rows' first lines, of their second lines, of the next eight rows' first lines.
__device__ __forceinline__ int part_place(int row, int part, int lines) {
  return (row / 8 * lines + part / 8) * BOX_BYTES + row % 8 * LINE_BYTES + ((part ^ row) % 8) * 16;
}

// Of a matrix that begins in a box. Bytes from a box to the next along its lines, and to the box of
// the next eight lines.
__device__ __forceinline__ uint64_t descriptor(const void *from, int along, int down) {
  constexpr uint64_t LINES_OF_128 = 1ull << 62;
  uint64_t address = (shared_address(from) & 0x3FFFF) >> 4;
  return LINES_OF_128 | address | static_cast<uint64_t>(along >> 4) << 16 |
         static_cast<uint64_t>(down >> 4) << 32;
}

// Before the first product that uses registers that were written otherwise.
__device__ __forceinline__ void begin_products() {
  asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
}

__device__ __forceinline__ void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}

// Until at most `left` of the groups committed last are under way.
template <int left>
__device__ __forceinline__ void await_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(left) : "memory");
}

// The compiler neither moves nor copies them while products may be under way.
template <int N>
__device__ __forceinline__ void hold(float (&c)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) {
    asm volatile("" : "+f"(c[i])::"memory");
  }
}

#define PLACES_32                                                                                  \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,"    \
  "%25,%26,%27,%28,%29,%30,%31"
#define PLACES_64                                                                                  \
  PLACES_32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,"    \
            "%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define HELD_8(c, i)                                                                               \
  "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]),      \
      "+f"(c[i + 6]), "+f"(c[i + 7])
#define HELD_32(c, i) HELD_8(c, i), HELD_8(c, i + 8), HELD_8(c, i + 16), HELD_8(c, i + 24)

// 64 rows of 128 numbers: c = a * b^T, or with ADD c += a * b^T, of 16 numbers of the rows of a and
// of b, both in shared memory. A thread holds rows g and g + 8 of its warp's 16 as mma.cuh says.
#define SCORES(TYPE, ADD)                                                                          \
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE " " PLACES_64          \
               "}, %64, %65, " ADD ", 1, 1, 0, 0;\n"                                               \
               : HELD_32(c, 0), HELD_32(c, 32)                                                     \
               : "l"(a), "l"(b))
template <bool HALF, bool ADD>
__device__ __forceinline__ void multiply_rows(float (&c)[64], uint64_t a, uint64_t b) {
  if constexpr (HALF) {
    if constexpr (ADD) {
      SCORES("f16", "1");
    } else {
      SCORES("f16", "0");
    }
  } else {
    if constexpr (ADD) {
      SCORES("bf16", "1");
    } else {
      SCORES("bf16", "0");
    }
  }
}

// c += a * b of 16 columns of a, in registers, and 16 rows of b, in shared memory.
#define SUMS_64(TYPE)                                                                              \
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE " " PLACES_32           \
               "}, {%32,%33,%34,%35}, %36, 1, 1, 1, 1;\n"                                          \
               : HELD_32(c, 0)                                                                     \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
#define SUMS_128(TYPE)                                                                             \
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE " " PLACES_64          \
               "}, {%64,%65,%66,%67}, %68, 1, 1, 1, 1;\n"                                          \
               : HELD_32(c, 0), HELD_32(c, 32)                                                     \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
template <bool HALF>
__device__ __forceinline__ void multiply_columns(float (&c)[32], const uint32_t *a, uint64_t b) {
  if constexpr (HALF) {
    SUMS_64("f16");
  } else {
    SUMS_64("bf16");
  }
}
template <bool HALF>
__device__ __forceinline__ void multiply_columns(float (&c)[64], const uint32_t *a, uint64_t b) {
  if constexpr (HALF) {
    SUMS_128("f16");
  } else {
    SUMS_128("bf16");
  }
}

// The same of e4m3: 32 numbers of the rows of a and of b.
template <bool ADD>
__device__ __forceinline__ void multiply_rows_e4m3(float (&c)[64], uint64_t a, uint64_t b) {
#define SCORES_E4M3(ADDS)                                                                          \
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 " PLACES_64                  \
               "}, %64, %65, " ADDS ", 1, 1;\n"                                                    \
               : HELD_32(c, 0), HELD_32(c, 32)                                                     \
               : "l"(a), "l"(b))
  if constexpr (ADD) {
    SCORES_E4M3("1");
  } else {
    SCORES_E4M3("0");
  }
}

// c = a * b^T, or with ADD c += a * b^T, of 32 columns of a, in registers, and 32 numbers of the 136
// rows of b. A thread holds of a, four numbers a register, with g and t as mma.cuh says: (g,
// 4t..4t+3), (g+8, 4t..), (g, 4t+16..), (g+8, 4t+16..).
template <bool ADD>
__device__ __forceinline__ void multiply_columns_e4m3(float (&c)[68], const uint32_t *a,
                                                      uint64_t b) {
#define SUMS_E4M3(ADDS)                                                                            \
  asm volatile("wgmma.mma_async.sync.aligned.m64n136k32.f32.e4m3.e4m3 " PLACES_64                  \
               ",%64,%65,%66,%67}, {%68,%69,%70,%71}, %72, " ADDS ", 1, 1;\n"                      \
               : HELD_32(c, 0), HELD_32(c, 32), "+f"(c[64]), "+f"(c[65]), "+f"(c[66]), "+f"(c[67]) \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
  if constexpr (ADD) {
    SUMS_E4M3("1");
  } else {
    SUMS_E4M3("0");
  }
}

// What this thread wrote to shared memory products may read, once a barrier is passed.
__device__ __forceinline__ void publish_to_products() {
  asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
}

// What the driver makes of a matrix in memory (CUtensorMap).
struct alignas(64) TensorMap {
  uint64_t words[16];
};

// Brings a box of a tensor of four dimensions, of which the last begins at `at`.
__device__ __forceinline__ void copy_box(void *to, const TensorMap &map, int at, Gate &gate) {
  asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
               "[%0], [%1, {%2, %2, %2, %3}], [%4];\n" ::"r"(shared_address(to)),
               "l"(&map), "r"(0), "r"(at), "r"(shared_address(&gate))
               : "memory");
}

// Barriers 1 to 15 of a block, 0 is __syncthreads's.
__device__ __forceinline__ void sync_named(int id, int threads) {
  asm volatile("bar.sync %0, %1;\n" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void arrive_named(int id, int threads) {
  asm volatile("bar.arrive %0, %1;\n" ::"r"(id), "r"(threads) : "memory");
}

template <int registers>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(registers));
}
template <int registers>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(registers));
}

#endif
