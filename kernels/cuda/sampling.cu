// Draws a token from each row of logits: what the Java class Sampler defines, step by step, so that
// both draw the same tokens. One block a row; logits are float, [rows][vocab].
//
// Tokens are ordered by (logit descending, id ascending); a token's key is the smaller the earlier
// it comes in that order.

#include "block.cuh"

constexpr int THREADS = 1024;
constexpr int FAILED = -1;
constexpr int MOST_LOGPROBS = 20;

// How a row's token is drawn. The host writes it: keep in step with SamplingKernels.
struct Draw {
  unsigned long long stream; // of the position's noise
  double temperature;        // 0: the likeliest
  double floor;              // logarithm of min-p
  double top_p;              // 1: off
  int top_k;                 // 0: off
  int logprobs;              // -1: none
  float repetition;
  float presence;
  float frequency;
  int first_seen; // in `seen`
  int seen_count;
  int pending; // row of the step before whose token comes on top of those seen, or -1
  int first_masked;
  int masked_count;
};

// A token of prompt or output, and how often the output has it; after the penalties its logit
// before them.
struct Seen {
  int token;
  union {
    int count;
    float before;
  };
};

struct Logprobs {
  float chosen;
  int count;
  int tokens[MOST_LOGPROBS];
  float values[MOST_LOGPROBS];
};

typedef unsigned long long u64;

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

constexpr u64 NO_KEY = ~0ull;

struct Shared {
  u64 keys[WARP];
  double numbers[WARP];
  int flags[WARP];
};

__device__ __forceinline__ u64 least(u64 v, Shared &s) {
  return block_reduce(v, s.keys, NO_KEY, [](u64 a, u64 b) { return a < b ? a : b; });
}

// Calls use(token, logit) for each logit that falls to this thread, in the order of their ids. Four
// times DEPTH are under way at a time: there is one block a row, and few rows would wait for memory.
template <int DEPTH, typename Use>
__device__ __forceinline__ void each(const float *row, int vocab, Use use) {
  if (vocab % 4 != 0) {
#pragma unroll 4
    for (int i = threadIdx.x; i < vocab; i += THREADS) {
      use(i, row[i]);
    }
    return;
  }
  const float4 *vectors = reinterpret_cast<const float4 *>(row);
  int count = vocab / 4;
  for (int from = threadIdx.x; from < count; from += DEPTH * THREADS) {
    float4 v[DEPTH];
#pragma unroll
    for (int k = 0; k < DEPTH; k++) {
      int i = from + k * THREADS;
      v[k] = vectors[i < count ? i : from];
    }
#pragma unroll
    for (int k = 0; k < DEPTH; k++) {
      int i = from + k * THREADS;
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
__device__ u64 first(const float *row, int vocab, Shared &s) {
  float top = -INFINITY;
  int token = -1;
  int bad = 0;
  each<4>(row, vocab, [&](int i, float x) {
    bad |= !(x < INFINITY);
    if (x > top) {
      top = x;
      token = i;
    }
  });
  bad = block_reduce(bad, s.flags, 0, [](int a, int b) { return a | b; });
  u64 key = least(token < 0 ? NO_KEY : key_of(top, token), s);
  return bad ? NO_KEY : key;
}

__device__ __forceinline__ float penalised(float x, int count, const Draw &draw) {
  // Rounded after each operation, as Java does it.
  x = x > 0 ? __fdiv_rn(x, draw.repetition) : __fmul_rn(x, draw.repetition);
  if (count > 0) {
    x = __fsub_rn(x, __fadd_rn(__fmul_rn(static_cast<float>(count), draw.frequency), draw.presence));
  }
  return x;
}

// Penalties and masks, in place. The logit before them of a token that is not among those seen but
// pending goes to *pending_before.
__device__ void change(float *row, const Draw &draw, Seen *seen, const int *masked,
                       const int *previous, float *pending_before) {
  __shared__ int found;
  int pending = draw.pending < 0 ? -1 : previous[draw.pending];
  if (threadIdx.x == 0) {
    found = 0;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < draw.seen_count; i += THREADS) {
    Seen &entry = seen[draw.first_seen + i];
    int count = entry.count;
    if (entry.token == pending) {
      count++;
      found = 1;
    }
    float before = row[entry.token];
    row[entry.token] = penalised(before, count, draw);
    entry.before = before;
  }
  __syncthreads();
  if (threadIdx.x == 0 && pending >= 0 && !found) {
    *pending_before = row[pending];
    row[pending] = penalised(*pending_before, 1, draw);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < draw.masked_count; i += THREADS) {
    row[masked[draw.first_masked + i]] = -INFINITY;
  }
  __syncthreads();
}

// Filters.

constexpr int DIGIT_BITS = 11;
constexpr int BINS = 1 << DIGIT_BITS;

// Shares are sums of integers, so that they do not depend on the order of summation: 2^17 tokens of
// at most 2^46 each.
constexpr double WHOLE = 70368744177664.0;

struct Histogram {
  unsigned counts[BINS];
  u64 masses[BINS];
  // What the walk found.
  int bin;
  unsigned count_before;
  u64 mass_before;
};

struct Scale {
  double top; // the largest logit
  double temperature;

  __device__ __forceinline__ double operator()(float logit) const {
    return (static_cast<double>(logit) - top) / temperature;
  }

  __device__ __forceinline__ u64 mass(float logit) const {
    double x = (*this)(logit);
    return x < -33.0 ? 0 : static_cast<u64>(exp(x) * WHOLE); // exp(-33) * 2^46 < 1
  }
};

// What a search for the end of the tokens that are kept has come to.
struct Cut {
  unsigned rank;         // of the last token
  unsigned count_before; // tokens of smaller rank
  u64 mass_before;
  unsigned equals; // tokens of this rank
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

// The rank of the token with which count or mass reach what is wanted, digit by digit.
__device__ Cut search(const float *row, int vocab, const Scale &scale, bool by_mass,
                      unsigned wanted_count, u64 wanted_mass, Histogram &h) {
  Cut cut = {0, 0, 0, 0};
  int shift = 32;
  for (int digit = 0; digit < 3; digit++) {
    int bits = digit < 2 ? DIGIT_BITS : 32 - 2 * DIGIT_BITS;
    shift -= bits;
    __syncthreads();
    for (int i = threadIdx.x; i < BINS; i += THREADS) {
      h.counts[i] = 0;
      h.masses[i] = 0;
    }
    __syncthreads();
    each<2>(row, vocab, [&](int, float x) {
      unsigned rank = rank_of(x);
      if (x > -INFINITY && (digit == 0 || rank >> (shift + bits) == cut.rank)) {
        int bin = rank >> shift & ((1 << bits) - 1);
        atomicAdd(&h.counts[bin], 1u);
        u64 mass = scale.mass(x);
        if (mass > 0) {
          atomicAdd(&h.masses[bin], mass);
        }
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
__device__ int nth_of_rank(const float *row, int vocab, unsigned rank, unsigned wanted, Shared &s) {
  __shared__ int token;
  int before = 0;
  for (int start = 0; start < vocab; start += THREADS) {
    int i = start + threadIdx.x;
    bool equal = i < vocab && rank_of(row[i]) == rank;
    unsigned lanes = __ballot_sync(ALL, equal);
    int warp = threadIdx.x / WARP;
    __syncthreads();
    if (threadIdx.x % WARP == 0) {
      s.flags[warp] = __popc(lanes);
    }
    __syncthreads();
    int ahead = before;
    int all = 0;
    for (int w = 0; w < THREADS / WARP; w++) {
      ahead += w < warp ? s.flags[w] : 0;
      all += s.flags[w];
    }
    int own = ahead + __popc(lanes & ((2u << threadIdx.x % WARP) - 1));
    if (equal && own == wanted) {
      token = i;
    }
    before += all;
    if (before >= wanted) {
      break;
    }
  }
  __syncthreads();
  return token;
}

__device__ u64 last_kept(const float *row, int vocab, const Cut &cut, unsigned of_equals,
                         Shared &s) {
  int token = of_equals >= cut.equals ? 0x7fffffff : nth_of_rank(row, vocab, cut.rank, of_equals, s);
  return static_cast<u64>(cut.rank) << 32 | static_cast<unsigned>(token);
}

// The key of the last token that top-k and top-p keep.
__device__ u64 filter(const float *row, int vocab, const Scale &scale, const Draw &draw,
                      Histogram &h, Shared &s) {
  u64 last = NO_KEY;
  u64 total = 0;
  int candidates = 0;
  each<2>(row, vocab, [&](int, float x) { candidates += x > -INFINITY; });
  candidates = block_reduce(candidates, s.flags, 0, [](int a, int b) { return a + b; });
  bool few = draw.top_k > 0 && draw.top_k < candidates;
  if (few) {
    Cut cut = search(row, vocab, scale, false, draw.top_k, 0, h);
    unsigned of_equals = draw.top_k - cut.count_before;
    last = last_kept(row, vocab, cut, of_equals, s);
    total = cut.mass_before + of_equals * scale.mass(logit_of(cut.rank));
  }
  if (draw.top_p < 1) {
    if (!few) {
      each<2>(row, vocab, [&](int, float x) { total += scale.mass(x); });
      total = block_reduce(total, s.keys, 0ull, [](u64 a, u64 b) { return a + b; });
    }
    u64 wanted = static_cast<u64>(ceil(draw.top_p * static_cast<double>(total)));
    Cut cut = search(row, vocab, scale, true, 0, wanted, h);
    u64 each = scale.mass(logit_of(cut.rank));
    u64 missing = wanted - min(wanted, cut.mass_before);
    u64 of_equals = each == 0 ? cut.equals : max(1ull, (missing + each - 1) / each);
    u64 by_mass = last_kept(row, vocab, cut, min(of_equals, static_cast<u64>(cut.equals)), s);
    last = min(last, by_mass);
  }
  return last;
}

// The Gumbel-max draw.

__device__ __forceinline__ u64 mix(u64 z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

__device__ __forceinline__ u64 noise_bits(u64 stream, int token) {
  return mix(stream + 0x9E3779B97F4A7C15ull * (static_cast<u64>(token) + 1)) >> 12;
}

__device__ __forceinline__ double score(double x, u64 bits) {
  double u = (static_cast<double>(bits) + 0.5) * 0x1p-52;
  return x - log(-log(u));
}

// Above every noise that these bits can make: -ln(u) > 1 - u >= 2^e, so noise < -e ln 2.
__device__ __forceinline__ float noise_bound(u64 bits) {
  u64 rest = ~bits & ((1ull << 52) - 1);
  int exponent = rest == 0 ? -53 : 11 - __clzll(rest);
  return -exponent * 0.6931472f;
}

__device__ int race(const float *row, int vocab, const Scale &scale, const Draw &draw, int likeliest,
                    u64 last, Shared &s) {
  double best = score(0.0, noise_bits(draw.stream, likeliest));
  int winner = likeliest;
  float top = static_cast<float>(scale.top);
  float inverse = static_cast<float>(1.0 / scale.temperature);
  each<2>(row, vocab, [&](int i, float x) {
    u64 bits = noise_bits(draw.stream, i);
    // Most are seen to lose with no logarithm and no double. What is no number here goes on.
    float about = (x - top) * inverse;
    if (about + noise_bound(bits) + 1e-3f - about * 1e-6f < static_cast<float>(best) - 1e-4f) {
      return;
    }
    double exact = scale(x);
    if (key_of(x, i) > last || exact < draw.floor || exact == -INFINITY) {
      return;
    }
    double own = score(exact, bits);
    if (own > best || (own == best && i < winner)) {
      best = own;
      winner = i;
    }
  });
  double most = block_reduce(best, s.numbers, static_cast<double>(-INFINITY),
                             [](double a, double b) { return a > b ? a : b; });
  return static_cast<int>(least(best == most ? static_cast<u64>(winner) : NO_KEY, s));
}

// Log-probabilities before penalties; of the chosen one later.

__device__ double log_sum(const float *row, int vocab, float top, Shared &s) {
  double sum = 0;
  each<2>(row, vocab, [&](int, float x) { sum += exp(static_cast<double>(x) - top); });
  sum = block_reduce(sum, s.numbers, 0.0, [](double a, double b) { return a + b; });
  return top + log(sum);
}

__device__ void likeliest(const float *row, int vocab, double norm, int count, Logprobs *out,
                          Shared &s) {
  u64 before = 0;
  for (int n = 0; n < count; n++) {
    u64 next = NO_KEY;
    each<2>(row, vocab, [&](int i, float x) {
      u64 key = key_of(x, i);
      if ((n == 0 || key > before) && key < next) {
        next = key;
      }
    });
    before = least(next, s);
    if (threadIdx.x == 0) {
      int token = static_cast<int>(before & 0xffffffffu);
      out->tokens[n] = token;
      out->values[n] = static_cast<float>(row[token] - norm);
    }
  }
}

// previous: what the step before drew. logits are changed where penalties or masks say so. With
// logprobs [rows]; null where no row wants any.
extern "C" __global__ void __launch_bounds__(THREADS)
    sample(float *logits, const Draw *draws, Seen *seen, const int *masked, const int *previous,
           int *tokens, Logprobs *logprobs, int vocab) {
  __shared__ Shared s;
  __shared__ Histogram histogram;
  __shared__ float pending_before;
  float *row = logits + static_cast<size_t>(blockIdx.x) * vocab;
  Draw draw = draws[blockIdx.x];

  u64 best = first(row, vocab, s);
  double norm = 0;
  if (draw.logprobs >= 0 && best != NO_KEY) {
    norm = log_sum(row, vocab, row[best & 0xffffffffu], s);
    int count = min(draw.logprobs, vocab);
    likeliest(row, vocab, norm, count, logprobs + blockIdx.x, s);
    if (threadIdx.x == 0) {
      logprobs[blockIdx.x].count = count;
    }
  }
  bool changes = draw.seen_count > 0 || draw.pending >= 0 || draw.masked_count > 0;
  if (changes && best != NO_KEY) {
    __syncthreads();
    change(row, draw, seen, masked, previous, &pending_before);
    best = first(row, vocab, s);
  }
  if (best == NO_KEY) {
    if (threadIdx.x == 0) {
      tokens[blockIdx.x] = FAILED;
    }
    return;
  }
  int token = static_cast<int>(best & 0xffffffffu);
  if (draw.temperature > 0) {
    Scale scale = {row[token], draw.temperature};
    u64 last = NO_KEY;
    if (draw.top_k > 0 || draw.top_p < 1) {
      last = filter(row, vocab, scale, draw, histogram, s);
    }
    token = race(row, vocab, scale, draw, token, last, s);
  }
  if (threadIdx.x == 0) {
    tokens[blockIdx.x] = token;
  }
  if (draw.logprobs >= 0) {
    __shared__ float before;
    __syncthreads();
    if (threadIdx.x == 0) {
      before = draw.pending >= 0 && previous[draw.pending] == token ? pending_before : row[token];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < draw.seen_count; i += THREADS) {
      if (seen[draw.first_seen + i].token == token) {
        before = seen[draw.first_seen + i].before;
      }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      logprobs[blockIdx.x].chosen = static_cast<float>(before - norm);
    }
  }
}
