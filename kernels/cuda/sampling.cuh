// What drawing a token from a row of logits is made of: the order of tokens, the blocks that share a
// row, their way through it, and what tokens weigh. logits are float, [rows][vocab].
//
// Tokens are ordered by (logit descending, id ascending); a token's key is the smaller the earlier
// it comes in that order.
#pragma once

#include "block.cuh"
#include "cluster.cuh"

constexpr int THREADS = 1024;

typedef unsigned long long u64;

constexpr u64 NO_KEY = ~0ull;

__device__ __forceinline__ unsigned rank_of(float logit) {
  unsigned bits = __float_as_uint(logit + 0.0f); // makes -0 the equal of 0
  return bits & 0x80000000u ? bits : ~bits & 0x7fffffffu;
}

__device__ __forceinline__ float logit_of(unsigned rank) {
  return __uint_as_float(rank & 0x80000000u ? rank : ~rank & 0x7fffffffu);
}

__device__ __forceinline__ u64 key_of(float logit, int token) {
  return static_cast<u64>(rank_of(logit)) << 32 | static_cast<unsigned>(token);
}

struct Shared {
  u64 scratch[WARP]; // of block_reduce, for numbers of up to eight bytes
  u64 told[2];       // what a block has to say to the others of its team, in turns
};

#if CLUSTERS

__device__ __forceinline__ u64 read_of(const u64 *mine, int rank) {
  u64 v;
  asm volatile("ld.shared::cluster.u64 %0, [%1];" : "=l"(v) : "r"(in_block(mine, rank)) : "memory");
  return v;
}

__device__ __forceinline__ unsigned read_of(const unsigned *mine, int rank) {
  unsigned v;
  asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(v) : "r"(in_block(mine, rank)) : "memory");
  return v;
}

__device__ __forceinline__ void write_of(u64 *mine, int rank, u64 v) {
  asm volatile("st.shared::cluster.u64 [%0], %1;" ::"r"(in_block(mine, rank)), "l"(v) : "memory");
}

__device__ __forceinline__ void write_of(unsigned *mine, int rank, unsigned v) {
  asm volatile("st.shared::cluster.u32 [%0], %1;" ::"r"(in_block(mine, rank)), "r"(v) : "memory");
}

__device__ __forceinline__ unsigned add_of(unsigned *mine, int rank, unsigned v) {
  unsigned old;
  asm volatile("atom.shared::cluster.add.u32 %0, [%1], %2;"
               : "=r"(old)
               : "r"(in_block(mine, rank)), "r"(v)
               : "memory");
  return old;
}

#endif

// The blocks that share a row: one, or a cluster. What they find out does not depend on how many they
// are.
struct Team {
  Shared &s;
  int rank;
  int blocks;
  int turn;

  __device__ explicit Team(Shared &s) : s(s), rank(0), blocks(1), turn(0) {}

  __device__ Team(Shared &s, int rank, int blocks) : s(s), rank(rank), blocks(blocks), turn(0) {}

  // Waits for all of them; what they wrote, in any memory, can be seen then.
  __device__ __forceinline__ void sync() const {
#if CLUSTERS
    if (blocks > 1) {
      asm volatile("barrier.cluster.arrive.release;\n"
                   "barrier.cluster.wait.acquire;\n" ::
                       : "memory");
      return;
    }
#endif
    __syncthreads();
  }

  // Every thread of the team gets the result.
  template <typename T, typename Combine>
  __device__ __forceinline__ T reduce(T v, T neutral, Combine combine) {
    static_assert(sizeof(T) == sizeof(u64), "told as it is");
    v = block_reduce(v, reinterpret_cast<T *>(s.scratch), neutral, combine);
#if CLUSTERS
    if (blocks > 1) {
      u64 *mine = s.told + turn;
      turn ^= 1; // the others may still read what was told last
      if (threadIdx.x == 0) {
        memcpy(mine, &v, sizeof v);
      }
      sync();
      v = neutral;
      for (int r = 0; r < blocks; r++) {
        u64 told = read_of(mine, r);
        T theirs;
        memcpy(&theirs, &told, sizeof theirs);
        v = combine(v, theirs);
      }
    }
#endif
    return v;
  }

  __device__ __forceinline__ u64 least(u64 v) {
    return reduce(v, NO_KEY, [](u64 a, u64 b) { return a < b ? a : b; });
  }
};

// Calls use(token, logit) for each logit that falls to this thread, in the order of their ids. Four
// times DEPTH are under way at a time: few blocks share a row, and would wait for memory.
template <int DEPTH, typename Use>
__device__ __forceinline__ void each(const Team &team, const float *row, int vocab, Use use) {
  int first = team.rank * THREADS + threadIdx.x;
  int stride = team.blocks * THREADS;
  if (vocab % 4 != 0) {
#pragma unroll 4
    for (int i = first; i < vocab; i += stride) {
      use(i, row[i]);
    }
    return;
  }
  const float4 *vectors = reinterpret_cast<const float4 *>(row);
  int count = vocab / 4;
  for (int from = first; from < count; from += DEPTH * stride) {
    float4 v[DEPTH];
#pragma unroll
    for (int k = 0; k < DEPTH; k++) {
      int i = from + k * stride;
      v[k] = vectors[i < count ? i : from];
    }
#pragma unroll
    for (int k = 0; k < DEPTH; k++) {
      int i = from + k * stride;
      if (i < count) {
        use(4 * i, v[k].x);
        use(4 * i + 1, v[k].y);
        use(4 * i + 2, v[k].z);
        use(4 * i + 3, v[k].w);
      }
    }
  }
}

// The key of the first token, or NO_KEY where the logits are no numbers.
__device__ __noinline__ u64 first(Team &team, const float *row, int vocab) {
  float top = -INFINITY;
  int token = -1;
  bool bad = false;
  each<4>(team, row, vocab, [&](int i, float x) {
    bad |= !(x < INFINITY);
    if (x > top) {
      top = x;
      token = i;
    }
  });
  // No number has this key, and none comes before it.
  constexpr u64 BAD = 0;
  u64 key = team.least(bad ? BAD : token < 0 ? NO_KEY : key_of(top, token));
  return key == BAD ? NO_KEY : key;
}

// Shares are sums of integers, so that they do not depend on the order of summation: fewer than 2^20
// tokens of at most 2^44 each.
constexpr double WHOLE = 17592186044416.0;

// A function of its own: it is long, rarely called, and would stand in each way through a row 16 times.
__device__ __noinline__ u64 exact_mass(double x) { return static_cast<u64>(exp(x) * WHOLE); }

// Logits as they are compared and weighed.
struct Scale {
  double temperature;
  float top; // the largest logit
  float inverse;

  __device__ Scale(float top, double temperature)
      : temperature(temperature), top(top),
        inverse(fminf(static_cast<float>(1.0 / temperature), 1e30f)) {}

  __device__ __forceinline__ double operator()(float logit) const {
    return (static_cast<double>(logit) - top) / temperature;
  }

  // To some units of a float's last place.
  __device__ __forceinline__ float about(float logit) const { return (logit - top) * inverse; }

  // exp(x) of WHOLE: as a double where that counts, and quickly where thousands hold next to nothing.
  __device__ __forceinline__ u64 mass(float logit) const {
    float x = about(logit);
    if (x > -6.0f) {
      return exact_mass((*this)(logit));
    }
    return x < -31.0f ? 0 : static_cast<u64>(exp2f(x * 1.4426950408889634f) * static_cast<float>(WHOLE));
  }
};
