// The emulated counterpart of kernels/cuda/bulk.cuh. Copies in bulk spoil what they overwrite at once
// and bring it some turns later.
#pragma once

#include "cuda_bf16.h"

#define BULK_COPIES 1

// Which turn it is in the highest bit, then how many have still to arrive, how many do in a turn, and
// the bytes that have still to come.
typedef uint64_t Gate;

inline void must(bool holds, const char *what) {
  if (!holds) {
    fprintf(stderr, "emulator: %s\n", what);
    abort();
  }
}

struct GateState {
  unsigned turn, missing, each;
  int bytes;

  explicit GateState(Gate g)
      : turn(g >> 63), missing(g >> 48 & 0x7fff), each(g >> 32 & 0xffff),
        bytes(static_cast<int>(g & 0xffffffffu)) {}

  void leave(Gate *gate) {
    if (missing == 0 && bytes == 0) {
      turn ^= 1;
      missing = each;
    }
    *gate = static_cast<uint64_t>(turn) << 63 | static_cast<uint64_t>(missing) << 48 |
            static_cast<uint64_t>(each) << 32 | static_cast<uint32_t>(bytes);
  }
};

inline void make_gate(Gate *gate, int arrivals) {
  *gate = static_cast<uint64_t>(arrivals) << 48 | static_cast<uint64_t>(arrivals) << 32;
}

inline void gates_made() {}

inline void arrive_expecting(Gate *gate, int bytes) {
  GateState state(*gate);
  must(state.missing > 0, "more arrive at a barrier than it counts in a turn");
  state.missing--;
  state.bytes += bytes;
  state.leave(gate);
}

inline void arrive(Gate *gate) { arrive_expecting(gate, 0); }

inline bool turn_has_ended(const void *gate, uint64_t parity) {
  return GateState(*static_cast<const Gate *>(gate)).turn != parity;
}

inline void await(Gate *gate, uint32_t parity) { wait_until(turn_has_ended, gate, parity); }


inline void bytes_came(void *gate, int bytes) {
  GateState state(*static_cast<Gate *>(gate));
  state.bytes -= bytes;
  state.leave(static_cast<Gate *>(gate));
}

inline void copy_bulk(void *to, const void *from, int bytes, Gate *gate) {
  must(bytes > 0 && bytes % 16 == 0, "a copy in bulk of no multiple of 16 bytes");
  must(reinterpret_cast<uintptr_t>(to) % 16 == 0, "a copy in bulk to a misaligned address");
  must(reinterpret_cast<uintptr_t>(from) % 16 == 0, "a copy in bulk from one");
  memset(to, 0xff, bytes);
  copy_later(to, from, bytes, gate, bytes_came);
}

template <int ID, int THREADS>
inline void part_barrier() {
  part_barrier(ID, THREADS);
}

inline void count_in(unsigned *count) { ++*count; }

inline unsigned count_in_and_look(unsigned *count) { return (*count)++; }

inline bool has_counted(const void *count, uint64_t wanted) {
  return static_cast<int>(*static_cast<const unsigned *>(count) - static_cast<unsigned>(wanted)) >= 0;
}

inline void await_count(const unsigned *count, unsigned wanted) {
  wait_until(has_counted, count, wanted);
}

inline void raise_maximum(float *at, float v) {
  int bits = bits_as<int>(v);
  if (bits > bits_as<int>(*at)) {
    *at = v;
  }
}

inline void ask_into_l2(const void *) {}

template <typename T>
inline T fresh(const T *p) {
  return *p;
}
