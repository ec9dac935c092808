// Which tokens top-k and top-p keep: a search for the last one, in the order of keys.
//
// One way through the row sorts its tokens into bins by how far they are below the first, with how
// many they are and what they weigh. That says in which bin the last one is, and a second way brings
// that bin's keys together, few as a rule, of which the last is chosen by comparing each with each.
// Where they are many (equal logits, next to no temperature) one block looks for it digit by digit of
// the ranks instead, however many there are.
#pragma once

#include "sampling.cuh"

constexpr int DIGIT_BITS = 11;
constexpr int BINS = 1 << DIGIT_BITS;
constexpr float BINS_OF_ONE = 64; // so that the last one begins where exp(-x) is 1e-14
constexpr int MOST_LISTED = THREADS;

struct Histogram {
  unsigned counts[BINS];
  u64 masses[BINS];
  // What the walk found.
  int bin;
  unsigned count_before;
  u64 mass_before;
};

// The keys of a bin, in no order.
struct List {
  u64 keys[MOST_LISTED];
  u64 masses[MOST_LISTED];
  unsigned count; // of the team's first block
  int bin;        // -1: of none
  int last;       // of the keys that are kept, and what they weigh up to it
  u64 mass;
};

struct Filter {
  Histogram histogram;
  List list;
};

// Warp 0: the first bin with which count or mass reach what is wanted.
__device__ void walk(Histogram &h, bool by_mass, unsigned wanted_count, u64 wanted_mass,
                     unsigned count, u64 mass) {
  constexpr int EACH = BINS / WARP;
  int lane = threadIdx.x;
  unsigned counts = 0;
  u64 masses = 0;
  for (int i = 0; i < EACH; i++) {
    counts += h.counts[lane * EACH + i];
    masses += h.masses[lane * EACH + i];
  }
  unsigned own_count = counts;
  u64 own_mass = masses;
#pragma unroll
  for (int offset = 1; offset < WARP; offset *= 2) {
    unsigned c = __shfl_up_sync(ALL, counts, offset);
    u64 m = __shfl_up_sync(ALL, masses, offset);
    if (lane >= offset) {
      counts += c;
      masses += m;
    }
  }
  bool reached = by_mass ? mass + masses >= wanted_mass : count + counts >= wanted_count;
  unsigned lanes = __ballot_sync(ALL, reached);
  if (lanes == 0 ? lane == WARP - 1 : lane == __ffs(lanes) - 1) {
    count += counts - own_count;
    mass += masses - own_mass;
    int bin = lane * EACH;
    for (; bin < lane * EACH + EACH - 1; bin++) {
      unsigned c = count + h.counts[bin];
      u64 m = mass + h.masses[bin];
      if (by_mass ? m >= wanted_mass : c >= wanted_count) {
        break;
      }
      count = c;
      mass = m;
    }
    h.bin = bin;
    h.count_before = count;
    h.mass_before = mass;
  }
}

__device__ __forceinline__ void clear(Histogram &h) {
  __syncthreads();
  for (int i = threadIdx.x; i < BINS; i += THREADS) {
    h.counts[i] = 0;
    h.masses[i] = 0;
  }
  __syncthreads();
}

__device__ __forceinline__ void count_in(Histogram &h, int bin, u64 mass) {
  atomicAdd(&h.counts[bin], 1u);
  if (mass > 0) {
    atomicAdd(&h.masses[bin], mass);
  }
}

// Digit by digit, by one block.

// What a search for the end of the tokens that are kept has come to.
struct Cut {
  unsigned rank;         // of the last token
  unsigned count_before; // tokens of smaller rank
  u64 mass_before;
  unsigned equals; // tokens of this rank
};

// The rank of the token with which count or mass reach what is wanted.
__device__ Cut search(const Team &solo, const float *row, int vocab, const Scale &scale, bool by_mass,
                      unsigned wanted_count, u64 wanted_mass, Histogram &h) {
  Cut cut = {0, 0, 0, 0};
  int shift = 32;
  for (int digit = 0; digit < 3; digit++) {
    int bits = digit < 2 ? DIGIT_BITS : 32 - 2 * DIGIT_BITS;
    shift -= bits;
    clear(h);
    each<2>(solo, row, vocab, [&](int, float x) {
      unsigned rank = rank_of(x);
      if (x > -INFINITY && (digit == 0 || rank >> (shift + bits) == cut.rank)) {
        count_in(h, rank >> shift & ((1 << bits) - 1), scale.mass(x));
      }
    });
    __syncthreads();
    if (threadIdx.x < WARP) {
      walk(h, by_mass, wanted_count, wanted_mass, cut.count_before, cut.mass_before);
    }
    __syncthreads();
    cut.rank = digit == 0 ? h.bin : cut.rank << bits | h.bin;
    cut.count_before = h.count_before;
    cut.mass_before = h.mass_before;
    cut.equals = h.counts[h.bin];
  }
  return cut;
}

// The id of the wanted-th of the tokens of a rank, from 1, by id.
__device__ int nth_of_rank(const float *row, int vocab, unsigned rank, unsigned wanted) {
  __shared__ int token;
  __shared__ int counts[THREADS / WARP];
  int before = 0;
  for (int start = 0; start < vocab; start += THREADS) {
    int i = start + threadIdx.x;
    bool equal = i < vocab && rank_of(row[i]) == rank;
    unsigned lanes = __ballot_sync(ALL, equal);
    int warp = threadIdx.x / WARP;
    __syncthreads();
    if (threadIdx.x % WARP == 0) {
      counts[warp] = __popc(lanes);
    }
    __syncthreads();
    int ahead = before;
    int all = 0;
    for (int w = 0; w < THREADS / WARP; w++) {
      ahead += w < warp ? counts[w] : 0;
      all += counts[w];
    }
    int own = ahead + __popc(lanes & ((2u << threadIdx.x % WARP) - 1));
    if (equal && own == static_cast<int>(wanted)) {
      token = i;
    }
    before += all;
    if (before >= static_cast<int>(wanted)) {
      break;
    }
  }
  __syncthreads();
  return token;
}

// The last key, and what is kept up to it weighs.
struct Last {
  u64 key;
  u64 mass;
};

__device__ __noinline__ Last last_by_digits(const Team &solo, const float *row, int vocab, const Scale &scale,
                               bool by_mass, unsigned wanted_count, u64 wanted_mass, Histogram &h) {
  Cut cut = search(solo, row, vocab, scale, by_mass, wanted_count, wanted_mass, h);
  u64 each = scale.mass(logit_of(cut.rank));
  u64 of_equals = wanted_count - cut.count_before;
  if (by_mass) {
    u64 missing = wanted_mass - min(wanted_mass, cut.mass_before);
    of_equals = each == 0 ? cut.equals : max(1ull, (missing + each - 1) / each);
  }
  of_equals = min(of_equals, static_cast<u64>(cut.equals));
  int token = of_equals == cut.equals
                  ? 0x7fffffff
                  : nth_of_rank(row, vocab, cut.rank, static_cast<unsigned>(of_equals));
  return {static_cast<u64>(cut.rank) << 32 | static_cast<unsigned>(token),
          cut.mass_before + of_equals * each};
}

// Bin by bin, by the team.

__device__ __forceinline__ int bin_of(const Scale &scale, float x) {
  return static_cast<int>(fminf(-scale.about(x) * BINS_OF_ONE, BINS - 1));
}

// Each block has the whole team's histogram.
__device__ __noinline__ void count_all(Team &team, const float *row, int vocab, const Scale &scale, Histogram &h) {
  clear(h);
  each<4>(team, row, vocab, [&](int, float x) {
    if (x > -INFINITY) {
      count_in(h, bin_of(scale, x), scale.mass(x));
    }
  });
  team.sync();
#if CLUSTERS
  if (team.blocks > 1) {
    int share = BINS / team.blocks;
    int bin = team.rank * share + threadIdx.x;
    bool mine = static_cast<int>(threadIdx.x) < share;
    unsigned count = 0;
    u64 mass = 0;
    for (int r = 0; mine && r < team.blocks; r++) {
      count += read_of(h.counts + bin, r);
      mass += read_of(h.masses + bin, r);
    }
    team.sync();
    for (int r = 0; mine && r < team.blocks; r++) {
      write_of(h.counts + bin, r, count);
      write_of(h.masses + bin, r, mass);
    }
    team.sync();
  }
#endif
}

// Each block has all keys of the bin.
__device__ __noinline__ void list(Team &team, const float *row, int vocab, const Scale &scale, int bin, int count,
                     List &l) {
  if (l.bin == bin) {
    return;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    l.count = 0;
    l.bin = bin;
    l.last = 0;
  }
  team.sync();
  each<4>(team, row, vocab, [&](int i, float x) {
    if (x > -INFINITY && bin_of(scale, x) == bin) {
      u64 key = key_of(x, i);
#if CLUSTERS
      if (team.blocks > 1) {
        unsigned at = add_of(&l.count, 0, 1);
        for (int r = 0; r < team.blocks; r++) {
          write_of(l.keys + at, r, key);
        }
        return;
      }
#endif
      l.keys[atomicAdd(&l.count, 1u)] = key;
    }
  });
  team.sync();
  if (static_cast<int>(threadIdx.x) < count) {
    l.masses[threadIdx.x] = scale.mass(logit_of(static_cast<unsigned>(l.keys[threadIdx.x] >> 32)));
  }
  __syncthreads();
}

// The last key that is kept: with which count or mass reach what is wanted.
__device__ __noinline__ Last last_kept(Team &team, const float *row, int vocab, const Scale &scale, bool by_mass,
                          unsigned wanted_count, u64 wanted_mass, Filter &f) {
  Histogram &h = f.histogram;
  List &l = f.list;
  __syncthreads();
  if (threadIdx.x < WARP) {
    walk(h, by_mass, wanted_count, wanted_mass, 0, 0);
  }
  __syncthreads();
  int bin = h.bin;
  int count = static_cast<int>(h.counts[bin]);
  if (count > MOST_LISTED) {
    Last last = {NO_KEY, 0};
    if (team.rank == 0) {
      Team solo(team.s);
      last = last_by_digits(solo, row, vocab, scale, by_mass, wanted_count, wanted_mass, h);
    }
    auto told = [](u64 a, u64 b) { return a < b ? a : b; };
    last.key = team.reduce(last.key, NO_KEY, told);
    last.mass = team.reduce(team.rank == 0 ? last.mass : NO_KEY, NO_KEY, told);
    if (!by_mass) {
      count_all(team, row, vocab, scale, h); // for the search by mass that may follow
    }
    return last;
  }
  unsigned count_before = h.count_before;
  u64 mass_before = h.mass_before;
  list(team, row, vocab, scale, bin, count, l);
  bool mine = static_cast<int>(threadIdx.x) < count;
  u64 key = mine ? l.keys[threadIdx.x] : NO_KEY;
  u64 mass = mass_before; // up to this key, without it
  unsigned before = count_before;
  for (int i = 0; mine && i < count; i++) {
    if (l.keys[i] < key) {
      before++;
      mass += l.masses[i];
    }
  }
  u64 with = mine ? mass + l.masses[threadIdx.x] : 0;
  bool last = by_mass ? mass < wanted_mass && with >= wanted_mass : before + 1 == wanted_count;
  if (mine && last) {
    l.last = threadIdx.x;
    l.mass = with;
  }
  __syncthreads();
  return {l.keys[l.last], l.mass};
}

// The key of the last token that top-k and top-p keep.
__device__ u64 filter(Team &team, const float *row, int vocab, const Scale &scale, int top_k,
                      double top_p, Filter &f) {
  Histogram &h = f.histogram;
  if (threadIdx.x == 0) {
    f.list.bin = -1;
  }
  count_all(team, row, vocab, scale, h);
  unsigned candidates = 0;
  u64 total = 0;
  for (int i = threadIdx.x; i < BINS; i += THREADS) {
    candidates += h.counts[i];
    total += h.masses[i];
  }
  auto add = [](u64 a, u64 b) { return a + b; };
  candidates = static_cast<unsigned>(
      block_reduce(static_cast<u64>(candidates), team.s.scratch, static_cast<u64>(0), add));
  total = block_reduce(total, team.s.scratch, static_cast<u64>(0), add);
  u64 last = NO_KEY;
  if (top_k > 0 && top_k < static_cast<int>(candidates)) {
    Last of = last_kept(team, row, vocab, scale, false, top_k, 0, f);
    last = of.key;
    total = of.mass;
  }
  if (top_p < 1) {
    u64 wanted = static_cast<u64>(ceil(top_p * static_cast<double>(total)));
    last = min(last, last_kept(team, row, vocab, scale, true, 0, wanted, f).key);
  }
  return last;
}
