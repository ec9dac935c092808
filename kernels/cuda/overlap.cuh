// Programmatic dependent launch: a kernel is set up, and begins with what depends on no other, while
// the one before it still runs. sm_90 has it; elsewhere kernels follow one another.
//
// Every kernel that is launched so calls await_previous before it reads or writes what kernels
// before it write or read, and so waits for all of them: each has waited for its own before it ends.
// Earlier than that it may read what was written before the last copy of the step, the beginning of
// its graph, or the last kernel that is not launched so: weights, and keys and values of earlier steps
// (of those transpose_values changes keys within a step, of positions whose values are no numbers;
// prefill in e4m3, which follows it, is launched so but admits nobody early).
#pragma once

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define OVERLAPS 1
#else
#define OVERLAPS 0
#endif

// Until the kernels before have ended and what they wrote can be seen.
__device__ __forceinline__ void await_previous() {
#if OVERLAPS
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// From here on the next kernel may be set up, once all blocks have come here or ended: a grid that
// does not fit at once keeps it out until its last blocks run.
__device__ __forceinline__ void admit_next() {
#if OVERLAPS
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
