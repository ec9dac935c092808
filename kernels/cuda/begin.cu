// What a step begins with: its tokens' rows of the embedding, and the angles of its positions.

#include "element.cuh"
#include "overlap.cuh"

// Where token_from is not negative the token is what the step before drew in that row. Where it drew
// nothing the row is any row.
__device__ __forceinline__ int token_of(int token, int token_from, const int *sampled) {
  return token_from < 0 ? token : max(0, sampled[token_from]);
}

__device__ __forceinline__ void embed_row(const bf16 *table, int token, bf16 *out, int row, int width,
                                          int aligned) {
  const bf16 *from = table + static_cast<size_t>(token) * width;
  bf16 *to = out + static_cast<size_t>(row) * width;
  if (aligned) {
    for (int i = threadIdx.x * VECTOR; i < width; i += blockDim.x * VECTOR) {
      *reinterpret_cast<uint4 *>(to + i) = *reinterpret_cast<const uint4 *>(from + i);
    }
  } else {
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
      to[i] = from[i];
    }
  }
}

// Cosine and sine of position * frequency, times scale. The angle is taken and reduced to within half
// a turn in double, so that positions of millions keep their precision.
__device__ __forceinline__ float2 turn_of(int position, double frequency, double scale) {
  const double turn = 6.283185307179586476925;
  double angle = position * frequency;
  float s, c;
  sincosf(static_cast<float>(angle - turn * rint(angle / turn)), &s, &c);
  return make_float2(static_cast<float>(c * scale), static_cast<float>(s * scale));
}

// What the host wrote to pinned memory, which no cache is asked for.
__device__ __forceinline__ int brought(const int *p) { return __ldcv(p); }

__device__ __forceinline__ uint4 brought(const uint4 *p) { return __ldcv(p); }

// out[t] = table[token_of(...)]. A block a row, or fewer and each takes several.
extern "C" __global__ void embed(const int *tokens, const int *token_from, const int *sampled,
                                 const bf16 *table, bf16 *out, int rows, int width, int aligned) {
  admit_next();
  await_previous();
  for (int row = blockIdx.x; row < rows; row += gridDim.x) {
    embed_row(table, token_of(tokens[row], token_from[row], sampled), out, row, width, aligned);
  }
}

// cos, sin: [tokens][pairs].
extern "C" __global__ void rope_angles(const int *positions, const double *frequencies, float *cos,
                                       float *sin, int tokens, int pairs, double scale) {
  admit_next();
  await_previous();
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < tokens * pairs) {
    float2 turn = turn_of(positions[i / pairs], frequencies[i % pairs], scale);
    cos[i] = turn.x;
    sin[i] = turn.y;
  }
}

// Both, a block a row, and the step's tables, which the host left in its own memory: `vectors` of 16
// bytes. tokens, token_from, positions are in them there. The bus takes longer than all the rest: what
// comes over it is asked for while the step before still runs.
extern "C" __global__ void begin_step(const uint4 *host, uint4 *tables, int vectors, const int *tokens,
                                      const int *token_from, const int *positions, const int *sampled,
                                      const bf16 *table, bf16 *out, int width, int aligned,
                                      const double *frequencies, float *cos, float *sin, int pairs,
                                      double scale) {
  __shared__ int of_row[3];
  int row = blockIdx.x;
  int first = row * blockDim.x + threadIdx.x;
  if (threadIdx.x < 3) {
    const int *from = threadIdx.x == 0 ? tokens : threadIdx.x == 1 ? token_from : positions;
    of_row[threadIdx.x] = brought(from + row);
  }
  uint4 vector;
  if (first < vectors) {
    vector = brought(host + first);
  }
  __syncthreads();
  int pair = threadIdx.x;
  float2 turn;
  if (pair < pairs) {
    turn = turn_of(of_row[2], frequencies[pair], scale);
  }
  await_previous();
  embed_row(table, token_of(of_row[0], of_row[1], sampled), out, row, width, aligned);
  if (first < vectors) {
    tables[first] = vector;
  }
  for (int i = first + gridDim.x * blockDim.x; i < vectors; i += gridDim.x * blockDim.x) {
    tables[i] = brought(host + i);
  }
  for (; pair < pairs; pair += blockDim.x) {
    if (pair >= blockDim.x) {
      turn = turn_of(of_row[2], frequencies[pair], scale);
    }
    cos[row * pairs + pair] = turn.x;
    sin[row * pairs + pair] = turn.y;
  }
}
