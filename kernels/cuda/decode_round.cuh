// The end of a decode's block whose results go to layers of FP8, and which does without a kernel that
// rounds them.
//
// A row's scale is that of the largest number of all its heads, which blocks of their own attend: so
// the last of them rounds the row.
#pragma once

#include "round.cuh"

struct Rounding {
  e4m3 *out;        // [rows][width]; null: nothing is rounded
  float *scales;    // [rows]
  unsigned *counts; // [rows] of blocks that have ended: zeros before, and zeros again afterwards
  float fixed;      // the scale of all rows; 0: each has its own
};

// All threads of all blocks that share a row call it, when their parts of the row are there. Bits are
// those of round_rows.
__device__ __forceinline__ void round_by_last(const Rounding &to, const bf16 *row, size_t index,
                                              int width, int blocks) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence(); // what the block wrote is seen before its count, and the others' after it
    unsigned others = static_cast<unsigned>(blocks - 1);
    last = atomicInc(to.counts + index, others) == others;
    __threadfence();
  }
  __syncthreads();
  if (last) {
    round_row(width, 0.0f, to.scales + index, to.out + index * width,
              [=](int i, float(&v)[VECTOR]) { load8(row + i, v); });
  }
}
