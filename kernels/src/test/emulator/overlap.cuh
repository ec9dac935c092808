// The emulated counterpart of kernels/cuda/overlap.cuh: kernels run one after another here, and
// whoever launches one as overlapping looks at whether it would have waited.
#pragma once

extern bool awaited_previous;

inline void await_previous() { awaited_previous = true; }

inline void admit_next() {}
