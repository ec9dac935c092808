// What both kernels of prefill for Hopper are made of (attention_sm90.cu, attention_e4m3_sm90.cu): a
// block of three warpgroups, of which one brings tiles of keys and values to shared memory and two
// have 64 rows each.
#pragma once

#include "attention.cuh"
#include "wgmma.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

constexpr int KEYS = 128; // positions of a tile
constexpr int ROWS_EACH = 64;
constexpr int SIDES = 2; // warpgroups with rows
constexpr int PREFILL_THREADS = (1 + SIDES) * WARPGROUP;

// Named barriers: a side's turn to begin products, and its own.
constexpr int TURN = 1;
constexpr int OWN = TURN + SIDES;

// A tile: rows (token, head of the group) of a sequence's query, as many tokens as there are whole
// groups in the rows of a block, or what is left of the query.
struct QueryTile {
  size_t query; // its first token's index in the batch
  int start;    // and that token's position
  int tokens; // 0: there is no tile
  int end; // of the positions that its tokens see
  const int *blocks; // of the sequence
  int group;
  int kv_head;

  __device__ __forceinline__ QueryTile(int tile, int kv_head, int group, const int *query_start,
                                       const int *context_length, const int *block_table,
                                       const int *tile_sequence, const int *tile_token,
                                       int max_blocks)
      : group(group), kv_head(kv_head) {
    int sequence = tile_sequence[tile];
    int first = tile_token[tile];
    int length = query_start[sequence + 1] - query_start[sequence];
    query = static_cast<size_t>(query_start[sequence]) + first;
    start = context_length[sequence] - length + first;
    tokens = first < 0 ? 0 : min(SIDES * ROWS_EACH / group, length - first);
    end = start + tokens;
    blocks = block_table + static_cast<size_t>(sequence) * max_blocks;
  }

  __device__ __forceinline__ bool real(int row) const { return row / group < tokens; }

  // Where a real row's numbers begin in tokens `stride` apart.
  template <int D>
  __device__ __forceinline__ size_t place(int row, int stride) const {
    size_t head = static_cast<size_t>(kv_head) * group + row % group;
    return (query + row / group) * stride + head * D;
  }

  // The last position that a row sees.
  __device__ __forceinline__ int last(int row) const { return min(start + row / group, end - 1); }
};

// Which of a pipeline's stages, and which turn of its gates.
template <int STAGES>
struct Stage {
  int at = 0;
  int phase = 0;

  __device__ __forceinline__ void next() {
    at++;
    if (at == STAGES) {
      at = 0;
      phase ^= 1;
    }
  }
};

// A thread has of each row two columns of every eight, as mma.cuh says of C: row r's are s[4 * i +
// 2 * r] and the one after it.

// Of the products of positions `from` on those that a row does not see become -infinity; row r sees
// up to last[r], the warp's first row up to warp_first.
__device__ __forceinline__ void hide(float (&s)[KEYS / 2], int from, const int (&last)[2],
                                     int warp_first) {
  if (from + KEYS - 1 > warp_first) {
    int column = from + 2 * (threadIdx.x % 4);
#pragma unroll
    for (int i = 0; i < KEYS / 2; i++) {
      if (column + i / 4 * 8 + i % 2 > last[i / 2 % 2]) {
        s[i] = -INFINITY;
      }
    }
  }
}

// The largest of row r, of all four threads that have a part of it.
__device__ __forceinline__ float largest(const float (&s)[KEYS / 2], int r) {
  float most = s[2 * r];
  float other = s[2 * r + 1];
#pragma unroll
  for (int i = 1; i < KEYS / 8; i++) {
    most = fmaxf(most, s[4 * i + 2 * r]);
    other = fmaxf(other, s[4 * i + 2 * r + 1]);
  }
  most = fmaxf(most, other);
  most = fmaxf(most, __shfl_xor_sync(ALL, most, 1));
  return fmaxf(most, __shfl_xor_sync(ALL, most, 2));
}

#endif
