// Draws a token from each row of logits: what the Java class Sampler defines, step by step, so that
// both draw the same tokens. One block a row; of few rows several, a cluster, where chips have those.

#include "overlap.cuh"
#include "sampling_filter.cuh"

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

__device__ __forceinline__ float penalised(float x, int count, const Draw &draw) {
  // Rounded after each operation, as Java does it.
  x = x > 0 ? __fdiv_rn(x, draw.repetition) : __fmul_rn(x, draw.repetition);
  if (count > 0) {
    x = __fsub_rn(x, __fadd_rn(__fmul_rn(static_cast<float>(count), draw.frequency), draw.presence));
  }
  return x;
}

// Penalties and masks, in place. The logit before them of a token that is not among those seen but
// pending goes to *pending_before of the team's first block.
__device__ __noinline__ void change(Team &team, float *row, const Draw &draw, Seen *seen, const int *masked,
                       const int *previous, float *pending_before) {
  __shared__ int found;
  if (team.rank == 0) {
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
  }
  team.sync();
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

__device__ __noinline__ double score(double x, u64 bits) {
  double u = (static_cast<double>(bits) + 0.5) * 0x1p-52;
  return x - log(-log(u));
}

// Above every noise that these bits can make: -ln(u) > 1 - u >= 2^e, so noise < -e ln 2.
__device__ __forceinline__ float noise_bound(u64 bits) {
  u64 rest = ~bits & ((1ull << 52) - 1);
  int exponent = rest == 0 ? -53 : 11 - __clzll(rest);
  return -exponent * 0.6931472f;
}

// last: the key of the last token that takes part.
__device__ int race(Team &team, const float *row, int vocab, const Scale &scale, const Draw &draw,
                    int likeliest, u64 last) {
  double best = score(0.0, noise_bits(draw.stream, likeliest));
  int winner = likeliest;
  // Compared before anything is computed: next to none are left where there is a filter.
  float lowest = last == NO_KEY ? -INFINITY : logit_of(static_cast<unsigned>(last >> 32));
  each<4>(team, row, vocab, [&](int i, float x) {
    if (x < lowest) {
      return;
    }
    u64 bits = noise_bits(draw.stream, i);
    // Most are seen to lose with no logarithm and no double. What is no number here goes on.
    float about = scale.about(x);
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
  double most = team.reduce(best, static_cast<double>(-INFINITY),
                            [](double a, double b) { return a > b ? a : b; });
  return static_cast<int>(team.least(best == most ? static_cast<u64>(winner) : NO_KEY));
}

// Log-probabilities before penalties; of the chosen one later.

__device__ __noinline__ double log_sum(Team &team, const float *row, int vocab, float top) {
  Scale scale(top, 1.0);
  u64 sum = 0;
  each<4>(team, row, vocab, [&](int, float x) { sum += scale.mass(x); });
  sum = team.reduce(sum, static_cast<u64>(0), [](u64 a, u64 b) { return a + b; });
  return top + log(static_cast<double>(sum) / WHOLE);
}

__device__ __noinline__ void likeliest(Team &team, const float *row, int vocab, double norm, int count,
                          Logprobs *out) {
  u64 before = 0;
  for (int n = 0; n < count; n++) {
    u64 next = NO_KEY;
    each<4>(team, row, vocab, [&](int i, float x) {
      u64 key = key_of(x, i);
      if ((n == 0 || key > before) && key < next) {
        next = key;
      }
    });
    before = team.least(next);
    if (team.rank == 0 && threadIdx.x == 0) {
      int token = static_cast<int>(before & 0xffffffffu);
      out->tokens[n] = token;
      out->values[n] = static_cast<float>(row[token] - norm);
    }
  }
}

struct Memory {
  Shared shared;
  Filter filter;
  float pending_before;
  float before;
};

// Of one row. Returns its token to all threads.
__device__ int draw_token(Team &team, Memory &m, float *row, const Draw &draw, Seen *seen,
                          const int *masked, const int *previous, Logprobs *logprobs, int vocab) {
  u64 best = first(team, row, vocab);
  double norm = 0;
  if (draw.logprobs >= 0 && best != NO_KEY) {
    norm = log_sum(team, row, vocab, row[best & 0xffffffffu]);
    int count = min(draw.logprobs, vocab);
    likeliest(team, row, vocab, norm, count, logprobs);
    if (team.rank == 0 && threadIdx.x == 0) {
      logprobs->count = count;
    }
  }
  bool changes = draw.seen_count > 0 || draw.pending >= 0 || draw.masked_count > 0;
  if (changes && best != NO_KEY) {
    team.sync();
    change(team, row, draw, seen, masked, previous, &m.pending_before);
    best = first(team, row, vocab);
  }
  if (best == NO_KEY) {
    return FAILED;
  }
  int token = static_cast<int>(best & 0xffffffffu);
  if (draw.temperature > 0) {
    Scale scale(row[token], draw.temperature);
    u64 last = NO_KEY;
    if (draw.top_k > 0 || draw.top_p < 1) {
      last = filter(team, row, vocab, scale, draw.top_k, draw.top_p, m.filter);
    }
    token = race(team, row, vocab, scale, draw, token, last);
  }
  if (draw.logprobs >= 0 && team.rank == 0) {
    __syncthreads();
    if (threadIdx.x == 0) {
      m.before = draw.pending >= 0 && previous[draw.pending] == token ? m.pending_before : row[token];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < draw.seen_count; i += THREADS) {
      if (seen[draw.first_seen + i].token == token) {
        m.before = seen[draw.first_seen + i].before;
      }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      logprobs->chosen = static_cast<float>(m.before - norm);
    }
  }
  return token;
}

// previous: what the step before drew. logits are changed where penalties or masks say so. The tokens
// go to two places, one of which the host reads. logprobs [rows]; null where no row wants any.
#define SAMPLE(NAME, TEAM)                                                                         \
  extern "C" __global__ void __launch_bounds__(THREADS)                                            \
      NAME(float *logits, const Draw *draws, Seen *seen, const int *masked, const int *previous,   \
           int *tokens, int *host_tokens, Logprobs *logprobs, int vocab) {                         \
    __shared__ Memory memory;                                                                      \
    admit_next();                                                                                  \
    await_previous();                                                                              \
    Team team TEAM;                                                                                \
    int index = blockIdx.x / team.blocks;                                                          \
    int token = draw_token(team, memory, logits + static_cast<size_t>(index) * vocab, draws[index], \
                           seen, masked, previous, logprobs + index, vocab);                       \
    if (team.rank == 0 && threadIdx.x == 0) {                                                      \
      tokens[index] = token;                                                                       \
      host_tokens[index] = token;                                                                  \
    }                                                                                              \
    if (team.blocks > 1) {                                                                         \
      team.sync(); /* others may still read what it told */                                        \
    }                                                                                              \
  }

SAMPLE(sample, (memory.shared))

#if CLUSTERS

// A row by each cluster.
SAMPLE(sample_by_clusters, (memory.shared, cluster_rank(), cluster_size()))

#endif
