// Copies in bulk that a barrier in shared memory counts, and what a kernel of which all blocks run at
// once has besides: barriers of part of a block, and one of the whole grid. sm_90 and later have the
// first; elsewhere there is no such kernel.
#pragma once

#include <stdint.h>

#include "mma.cuh"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define BULK_COPIES 1
#endif

#ifdef BULK_COPIES

// A barrier in shared memory: a turn of it ends when so many have arrived and all bytes have come
// that were announced to it.
typedef uint64_t Gate;

__device__ __forceinline__ void make_gate(Gate *gate, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(gate)), "r"(arrivals)
               : "memory");
}

// By whoever made gates, before anybody uses them.
__device__ __forceinline__ void gates_made() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void arrive(Gate *gate) {
  asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(shared_address(gate))
               : "memory");
}

__device__ __forceinline__ void arrive_expecting(Gate *gate, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(
                   shared_address(gate)),
               "r"(bytes)
               : "memory");
}

// Until the turn of that parity has ended.
__device__ __forceinline__ void await(Gate *gate, uint32_t parity) {
  asm volatile("{\n"
               ".reg .pred p;\n"
               "again:\n"
               "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 p, [%0], %1;\n"
               "@p bra done;\n"
               "bra again;\n"
               "done:\n"
               "}\n" ::"r"(shared_address(gate)),
               "r"(parity)
               : "memory");
}

// Copies a multiple of 16 bytes that is read once, or once by each of a few blocks: the cache had
// better keep other things.
__device__ __forceinline__ void copy_bulk(void *to, const void *from, int bytes, Gate *gate) {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
               "[%0], [%1], %2, [%3], %4;" ::"r"(shared_address(to)),
               "l"(from), "r"(bytes), "r"(shared_address(gate)), "l"(policy)
               : "memory");
}

// The same of what is read again and again.
__device__ __forceinline__ void copy_bulk_kept(void *to, const void *from, int bytes, Gate *gate) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, "
               "[%3];" ::"r"(shared_address(to)),
               "l"(from), "r"(bytes), "r"(shared_address(gate))
               : "memory");
}

// Of so many threads of a block, whole warps, which all name the same ID, above 0.
template <int ID, int THREADS>
__device__ __forceinline__ void part_barrier() {
  asm volatile("bar.sync %0, %1;" ::"n"(ID), "n"(THREADS) : "memory");
}

// What this thread, and those that it knows of, wrote is there for whoever sees the count.
__device__ __forceinline__ void count_in(unsigned *count) {
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(count) : "memory");
}

__device__ __forceinline__ unsigned count_in_and_look(unsigned *count) {
  unsigned before;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;" : "=r"(before) : "l"(count) : "memory");
  return before;
}

// Until so many were counted, as numbers that wrap around. A grid that waits for ever would keep the
// GPU: it ends in an error after some seconds.
__device__ __forceinline__ void await_count(const unsigned *count, unsigned wanted) {
  for (unsigned looks = 0;; looks++) {
    unsigned seen;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(count) : "memory");
    if (static_cast<int>(seen - wanted) >= 0) {
      return;
    }
    if (looks == 1u << 24) {
      __trap();
    }
  }
}

__device__ __forceinline__ void raise_maximum(float *at, float v) { // v is not negative
  atomicMax(reinterpret_cast<int *>(at), __float_as_int(v));
}

__device__ __forceinline__ void ask_into_l2(const void *p) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

// Numbers that other blocks of this grid wrote: past the multiprocessor's own cache.
template <typename T>
__device__ __forceinline__ T fresh(const T *p) {
  return __ldcg(p);
}

#endif
