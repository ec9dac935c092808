// Attention of a step: each row over its own context.
#pragma once

#include "step_products.cuh"

#ifdef BULK_COPIES

// Attention. What a warp multiplies it loads straight into registers: which number of a head is
// called which is chosen so that a thread's are 16 bytes that follow one another.

// A warp's share of one piece: the heads of a group over some blocks of the cache.
template <typename K, int D>
struct Share {
  static constexpr bool NARROW = sizeof(K) == 1;
  static constexpr int STEPS = D / 16;               // of 16 numbers of a head
  static constexpr int EACH = D / 8;                 // numbers of a value that a thread loads
  static constexpr int KEY_PARTS = D * sizeof(K) / STRETCH; // 16 bytes of a key
  static constexpr int VALUE_WORDS = EACH * sizeof(K) / 4;

  uint32_t q[STEPS][2];
  float out[STEPS][4]; // numbers g * EACH + 2i and the next, of heads 2t and 2t + 1
  float largest, sum;  // of head g; sum: this thread's tokens alone

  static __device__ __forceinline__ int number_of(int step, int t) {
    return NARROW ? step / 4 * 64 + t * 16 + step % 4 * 4 : step / 2 * 32 + t * 8 + step % 2 * 4;
  }

  static __device__ __forceinline__ void product(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                                 uint32_t b1) {
    if constexpr (NARROW) {
      mma_half(c, a, b0, b1);
    } else {
      mma(c, a, b0, b1);
    }
  }

  // head: of queries, or null.
  __device__ __forceinline__ void begin(const bf16 *head) {
    int t = threadIdx.x % 4;
    // 8 numbers after one another are those of two steps.
#pragma unroll
    for (int k = 0; k < STEPS; k += 2) {
      uint4 raw = make_uint4(0, 0, 0, 0);
      if (head) {
        raw = fresh(reinterpret_cast<const uint4 *>(head + number_of(k, t)));
      }
#pragma unroll
      for (int j = 0; j < 4; j++) {
        uint32_t pair = word(raw, j);
        if (NARROW) {
          float2 two = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162 *>(&pair));
          pair = pack_half(two.x, two.y);
        }
        q[k + j / 2][j % 2] = pair;
      }
    }
#pragma unroll
    for (int k = 0; k < STEPS; k++) {
      out[k][0] = out[k][1] = out[k][2] = out[k][3] = 0.0f;
    }
    largest = -INFINITY;
    sum = 0.0f;
  }

  // A block of the cache, as it is.
  struct Tile {
    uint4 key[2][KEY_PARTS];
    uint32_t value[4][VALUE_WORDS];

    __device__ __forceinline__ void take_keys(const K *keys) {
      int lane = threadIdx.x % WARP;
      keys += lane / 4 * D;
#pragma unroll
      for (int j = 0; j < 2; j++) {
#pragma unroll
        for (int part = 0; part < KEY_PARTS; part++) {
          key[j][part] = fresh(reinterpret_cast<const uint4 *>(
              reinterpret_cast<const char *>(keys + j * 8 * D) + part * STRETCH + lane % 4 * PART));
        }
      }
    }

    // Of which `count` tokens are seen. What an earlier sequence left may be no number, and 0 times
    // that is none.
    __device__ __forceinline__ void take_values(const K *values, int count) {
      int lane = threadIdx.x % WARP;
      values += lane % 4 * 2 * D + lane / 4 * EACH;
      count -= lane % 4 * 2;
#pragma unroll
      for (int j = 0; j < 4; j++) {
        int token = j % 2 + j / 2 * 8;
#pragma unroll
        for (int i = 0; i < VALUE_WORDS; i += 2) {
          uint2 two = token < count ? fresh(reinterpret_cast<const uint2 *>(values + token * D) + i / 2)
                                    : make_uint2(0, 0);
          value[j][i] = two.x;
          value[j][i + 1] = two.y;
        }
      }
    }
  };

  // Of which `count` tokens are seen. next_keys, next_values: called as soon as the tile's are no
  // longer needed, to ask for the next ones.
  template <typename NextKeys, typename NextValues>
  __device__ __forceinline__ void attend(const Tile &tile, int count, float scale,
                                         NextKeys next_keys, NextValues next_values) {
    int t = threadIdx.x % 4;
    const auto &key = tile.key;
    const auto &value = tile.value;
    float c[2][4] = {};
#pragma unroll
    for (int k = 0; k < STEPS; k++) {
      uint32_t a[4] = {q[k][0], 0, q[k][1], 0};
#pragma unroll
      for (int j = 0; j < 2; j++) {
        if constexpr (NARROW) {
          uint32_t w = word(key[j][k / 4], k % 4);
          product(c[j], a, halves(w & 0xffff), halves(w >> 16));
        } else {
          const uint4 &part = key[j][k / 2];
          product(c[j], a, k % 2 ? part.z : part.x, k % 2 ? part.w : part.y);
        }
      }
    }
    next_keys();
    float p[2][2];
    float top = -INFINITY;
#pragma unroll
    for (int j = 0; j < 2; j++) {
#pragma unroll
      for (int e = 0; e < 2; e++) {
        p[j][e] = j * 8 + 2 * t + e < count ? c[j][e] * scale : -INFINITY;
        top = fmaxf(top, p[j][e]);
      }
    }
    top = fmaxf(top, __shfl_xor_sync(ALL, top, 1));
    top = fmaxf(top, __shfl_xor_sync(ALL, top, 2));
    float now = fmaxf(largest, top);
    float shrink = power_of_two(largest - now); // a block has a token: now is a number
    largest = now;
    sum *= shrink;
#pragma unroll
    for (int j = 0; j < 2; j++) {
#pragma unroll
      for (int e = 0; e < 2; e++) {
        p[j][e] = power_of_two(p[j][e] - now);
        sum += p[j][e];
      }
    }
    float shrink0 = __shfl_sync(ALL, shrink, 8 * t);
    float shrink1 = __shfl_sync(ALL, shrink, 8 * t + 4);
    uint32_t b0 = NARROW ? pack_half(p[0][0], p[0][1]) : pack(p[0][0], p[0][1]);
    uint32_t b1 = NARROW ? pack_half(p[1][0], p[1][1]) : pack(p[1][0], p[1][1]);
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
      out[i][0] *= shrink0, out[i][2] *= shrink0;
      out[i][1] *= shrink1, out[i][3] *= shrink1;
      uint32_t a[4];
      if constexpr (NARROW) {
        unsigned even = i % 2 ? 0x0062 : 0x0040, odd = i % 2 ? 0x0073 : 0x0051;
        a[0] = halves(__byte_perm(value[0][i / 2], value[1][i / 2], even) & 0xffff);
        a[1] = halves(__byte_perm(value[0][i / 2], value[1][i / 2], odd) & 0xffff);
        a[2] = halves(__byte_perm(value[2][i / 2], value[3][i / 2], even) & 0xffff);
        a[3] = halves(__byte_perm(value[2][i / 2], value[3][i / 2], odd) & 0xffff);
      } else {
        a[0] = __byte_perm(value[0][i], value[1][i], 0x5410);
        a[1] = __byte_perm(value[0][i], value[1][i], 0x7632);
        a[2] = __byte_perm(value[2][i], value[3][i], 0x5410);
        a[3] = __byte_perm(value[2][i], value[3][i], 0x7632);
      }
      product(out[i], a, b0, b1);
    }
    next_values();
  }

  // To [group][D] and [group] of sums and largest.
  __device__ __forceinline__ void leave(float *to, float *sums, float *tops, int group) {
    int lane = threadIdx.x % WARP;
    int g = lane / 4;
    int t = lane % 4;
    sum += __shfl_xor_sync(ALL, sum, 1);
    sum += __shfl_xor_sync(ALL, sum, 2);
    if (t == 0 && g < group) {
      sums[g] = sum;
      tops[g] = largest;
    }
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
      int number = g * EACH + 2 * i;
      if (2 * t < group) {
        *reinterpret_cast<float2 *>(to + 2 * t * D + number) = make_float2(out[i][0], out[i][2]);
      }
      if (2 * t + 1 < group) {
        *reinterpret_cast<float2 *>(to + (2 * t + 1) * D + number) =
            make_float2(out[i][1], out[i][3]);
      }
    }
  }
};

// How a step's attention is cut into pieces: as many of a row and KV head as fill the grid.
struct Pieces {
  const int *before; // [rows + 1]
  int stretch;
  int all;

  __device__ static Pieces of(const Step &s, const Block &b) {
    Pieces p;
    p.before = b.pieces;
    p.stretch = *b.stretch;
    p.all = b.pieces[s.rows];
    return p;
  }

  // By one thread.
  __device__ static void plan(const Step &s, const Block &b) {
    unsigned tokens = 0;
    int longest = 0;
    for (int r = 0; r < s.rows; r++) {
      b.begins[r] = s.begin[r];
      b.slots[r] = s.slots[r];
      b.contexts[r] = b.slots[r] < 0 ? 0 : s.context_length[s.begin[r]];
      tokens += b.contexts[r];
      longest = max(longest, b.contexts[r]);
    }
    unsigned each = (tokens * s.kv_heads + gridDim.x - 1) / gridDim.x;
    each = (each + LEAST_STRETCH - 1) / LEAST_STRETCH * LEAST_STRETCH;
    int stretch = static_cast<int>(max(each, static_cast<unsigned>(LEAST_STRETCH)));
    if (longest <= LEFT_WHOLE) {
      stretch = LEFT_WHOLE;
    }
    b.pieces[0] = 0;
    for (int r = 0; r < s.rows; r++) {
      b.pieces[r + 1] = b.pieces[r] + (b.contexts[r] + stretch - 1) / stretch * s.kv_heads;
    }
    *b.stretch = stretch;
  }
};

template <typename K, int D>
struct Piece {
  int row, head, from, to, parts;
  const int *blocks;

  __device__ __forceinline__ Piece(const Step &s, const Block &b, const Pieces &pieces, int i) {
    row = 0;
    while (i >= pieces.before[row + 1]) {
      row++;
    }
    i -= pieces.before[row];
    head = i % s.kv_heads;
    parts = (pieces.before[row + 1] - pieces.before[row]) / s.kv_heads;
    from = i / s.kv_heads * pieces.stretch;
    to = min(from + pieces.stretch, b.contexts[row]);
    blocks = s.block_table + static_cast<size_t>(b.begins[row]) * s.max_blocks;
  }

  __device__ __forceinline__ size_t block_at(const Step &s, int position) const {
    return (static_cast<size_t>(blocks[position / BLOCK_TOKENS]) * s.kv_heads + head) *
           BLOCK_TOKENS * D;
  }
};

// What a warp knows of its block's first piece before queries are there: it is the same in all layers.
template <typename K, int D>
struct Ahead {
  static constexpr size_t NONE = ~static_cast<size_t>(0);
  size_t *blocks; // its first two, and those of the other warps

  __device__ __forceinline__ Ahead(const Step &s, const Block &b) {
    Pieces pieces = Pieces::of(s, b);
    blocks = b.ahead + threadIdx.x / WARP;
    int lane = threadIdx.x % WARP;
    if (lane < 2) {
      size_t block = NONE;
      if (static_cast<int>(blockIdx.x) < pieces.all) {
        Piece<K, D> piece(s, b, pieces, blockIdx.x);
        int at = piece.from + (threadIdx.x / WARP + lane * CREW_WARPS) * BLOCK_TOKENS;
        block = at < piece.to ? piece.block_at(s, at) : NONE;
      }
      blocks[lane * CREW_WARPS] = block;
    }
    __syncwarp();
  }

  __device__ __forceinline__ size_t block(int i) const { return blocks[i * CREW_WARPS]; }

  // Asks for what earlier steps left there.
  __device__ __forceinline__ void ask(const Layer &layer) const {
    constexpr int LINE = 128;
    int lane = threadIdx.x % WARP * LINE;
#pragma unroll
    for (int i = 0; i < 2; i++) {
      if (block(i) != NONE) {
        for (int at = lane; at < BLOCK_TOKENS * D * static_cast<int>(sizeof(K)); at += WARP * LINE) {
          ask_into_l2(reinterpret_cast<const char *>(static_cast<const K *>(layer.keys) + block(i)) +
                      at);
          ask_into_l2(
              reinterpret_cast<const char *>(static_cast<const K *>(layer.values) + block(i)) + at);
        }
      }
    }
  }
};

// A warp's first tile of its block's first piece, asked for before queries are there. Where this step's
// token goes into that tile, it has to be asked for again.
template <typename K, int D>
struct EarlyTile {
  typename Share<K, D>::Tile tile;

  __device__ __forceinline__ EarlyTile(const Layer &layer, const Block &b, const Ahead<K, D> &ahead) {
    if (ahead.block(0) != Ahead<K, D>::NONE) {
      tile.take_keys(static_cast<const K *>(layer.keys) + ahead.block(0));
      tile.take_values(static_cast<const K *>(layer.values) + ahead.block(0), BLOCK_TOKENS);
    }
  }
};

// Leaves two numbers of what is attended, and their row's largest.
__device__ __forceinline__ void leave_attended(const Step &s, int row, int at, float2 v,
                                               float *largest) {
  __nv_bfloat162 rounded = __floats2bfloat162_rn(v.x, v.y);
  *reinterpret_cast<__nv_bfloat162 *>(s.attended + at) = rounded;
  if (largest != nullptr) {
    float2 two = __bfloat1622float2(rounded);
    float top = warp_reduce(fmaxf(fabsf(two.x), fabsf(two.y)),
                            [](float a, float c) { return fmaxf(a, c); });
    if (threadIdx.x % WARP == 0) {
      raise_maximum(largest + row, top);
    }
  }
}

// memory: [CREW_WARPS][group][D] in the place of x, then sums and largest, each [CREW_WARPS][group].
template <typename K, int D>
__device__ __forceinline__ void attend_all(const Step &s, const Block &b, const Layer &layer,
                                           const Ahead<K, D> &ahead, const EarlyTile<K, D> &early,
                                           float *largest) {
  int warp = threadIdx.x / WARP;
  int g = threadIdx.x % WARP / 4;
  int group = s.heads / s.kv_heads;
  float key_scale = sizeof(K) == 1 ? layer.key_scale : 1.0f;
  float value_scale = sizeof(K) == 1 ? layer.value_scale : 1.0f;
  float scale = key_scale * 1.44269504088896f * rsqrtf(static_cast<float>(D));
  float *shares = reinterpret_cast<float *>(b.x);
  float *sums = shares + CREW_WARPS * group * D;
  float *tops = sums + CREW_WARPS * group;
  Pieces pieces = Pieces::of(s, b);
  for (int i = blockIdx.x; i < pieces.all; i += gridDim.x) {
    bool first_piece = i == static_cast<int>(blockIdx.x);
    Piece<K, D> piece(s, b, pieces, i);
    int width = s.heads * D;
    int first = piece.row * width + piece.head * group * D;
    int tiles = (piece.to - piece.from + BLOCK_TOKENS - 1) / BLOCK_TOKENS;
    if (warp < tiles) {
      Share<K, D> share;
      share.begin(g < group ? s.queries + first + g * D : nullptr);
      const K *keys = static_cast<const K *>(layer.keys);
      const K *values = static_cast<const K *>(layer.values);
      constexpr int STEP = CREW_WARPS * BLOCK_TOKENS;
      auto block_at = [&](int at, int n) {
        return first_piece && n < 2 ? ahead.block(n) : piece.block_at(s, at);
      };
      int at = piece.from + warp * BLOCK_TOKENS;
      typename Share<K, D>::Tile tile = early.tile;
      if (!first_piece || at + BLOCK_TOKENS >= b.contexts[piece.row]) {
        size_t block = block_at(at, 0);
        tile.take_keys(keys + block);
        tile.take_values(values + block, piece.to - at);
      }
      for (int n = 1; at < piece.to; at += STEP, n++) {
        bool more = at + STEP < piece.to;
        size_t next = more ? block_at(at + STEP, n) : 0;
        share.attend(
            tile, min(BLOCK_TOKENS, piece.to - at), scale,
            [&] {
              if (more) {
                tile.take_keys(keys + next);
              }
            },
            [&] {
              if (more) {
                tile.take_values(values + next, piece.to - at - STEP);
              }
            });
      }
      share.leave(shares + warp * group * D, sums + warp * group, tops + warp * group, group);
    }
    crew_barrier();
    int warps = min(tiles, CREW_WARPS);
    bool whole = piece.parts == 1;
    int count = group * D;
    float *partial = s.partial + static_cast<size_t>(i) * count;
    float *weights = s.partial + static_cast<size_t>(pieces.all) * count;
    // Two numbers a thread, of whole warps.
    for (int j = 2 * threadIdx.x; j < count; j += 2 * CREW) {
      int head = j / D;
      float factors[CREW_WARPS];
      float top = -INFINITY;
#pragma unroll
      for (int w = 0; w < CREW_WARPS; w++) {
        factors[w] = w < warps ? tops[w * group + head] : -INFINITY;
        top = fmaxf(top, factors[w]);
      }
      float sum = 0.0f;
      float2 value = make_float2(0.0f, 0.0f);
#pragma unroll
      for (int w = 0; w < CREW_WARPS; w++) {
        if (w < warps) {
          float factor = power_of_two(factors[w] - top);
          float2 share = *reinterpret_cast<const float2 *>(shares + w * count + j);
          sum += sums[w * group + head] * factor;
          value.x += share.x * factor;
          value.y += share.y * factor;
        }
      }
      float last = quotient(value_scale, sum);
      value.x *= last;
      value.y *= last;
      if (whole) {
        leave_attended(s, piece.row, first + j, value, largest);
      } else {
        *reinterpret_cast<float2 *>(partial + j) = value;
        if (j % D == 0) {
          weights[i * group + head] = top + log2f(sum);
        }
      }
    }
    crew_barrier();
    if (whole) {
      continue;
    }
    // Whoever is the last of a row and head puts the pieces together.
    unsigned *count_of = s.counts + 2 + piece.row * s.kv_heads + piece.head;
    if (threadIdx.x == 0) {
      *b.last =
          count_in_and_look(count_of) + 1 == static_cast<unsigned>(piece.parts);
    }
    crew_barrier();
    if (*b.last) {
      int one = pieces.before[piece.row] + piece.head;
      for (int j = 2 * threadIdx.x; j < count; j += 2 * CREW) {
        int head = j / D;
        float top = -INFINITY;
        for (int n = 0; n < piece.parts; n++) {
          top = fmaxf(top, fresh(weights + (one + n * s.kv_heads) * group + head));
        }
        float sum = 0.0f;
        float2 value = make_float2(0.0f, 0.0f);
        for (int n = 0; n < piece.parts; n++) {
          size_t at = one + n * s.kv_heads;
          float factor = exp2f(fresh(weights + at * group + head) - top);
          float2 share = fresh(reinterpret_cast<const float2 *>(s.partial + at * count + j));
          sum += factor;
          value.x += factor * share.x;
          value.y += factor * share.y;
        }
        float last = quotient(1.0f, sum);
        leave_attended(s, piece.row, first + j, make_float2(value.x * last, value.y * last), largest);
      }
      if (threadIdx.x == 0) {
        *count_of = 0;
      }
    }
    crew_barrier();
  }
}

#endif
