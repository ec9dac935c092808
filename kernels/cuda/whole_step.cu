// A decode step of few rows as one kernel: all layers of a Llama network, from the embedded rows to
// the logits.
//
// What such a step takes is the time to read the weights, so their way into shared memory never
// stops. Two warps of each block do nothing but ask for them, in a queue as deep as the memory
// allows, over the ends of products, layers and waits: where weights lie depends on nothing. Eight
// others, the crew, multiply what has come, and two store what comes of it. Between two products all
// blocks wait for each other, for each reads all of what the one before made; meanwhile the queue
// fills.
//
// A product's outputs are dealt out in units of 16, two stripes of 8 rows of weight: what an epilogue
// needs together (the two halves of a head that turn, a gate and its up) is in one unit. The warps of
// the crew share a unit's columns out among them, and their sums are added in a fixed order, so that
// a step comes out the same each time; of another number of rows it is summed in other pieces. Rows of
// inputs are held in shared memory, of wide ones a segment at a time.
//
// The blocks must all run at once (a cooperative launch), one on each multiprocessor.

#include "overlap.cuh"
#include "step_attention.cuh"
#include "step_products.cuh"
#include "step_rows.cuh"

#ifdef BULK_COPIES

__device__ __forceinline__ void put(bf16 *p, float v, float) { *p = __float2bfloat16_rn(v); }
__device__ __forceinline__ void put(e4m3 *p, float v, float inverse) { *p = to_e4m3(v * inverse); }

// An output of queries, keys or values: turned, and stored where it belongs.
template <typename K, int D>
__device__ __forceinline__ void store_qkv(const Step &s, const Block &b, const Layer &layer, int unit,
                                          int row, int i, float v, float2 angle, bool mine) {
  OfHead<D> of(unit);
  int pair = of.pair + i % STRIPE;
  float other = __shfl_xor_sync(ALL, v, STRIPE);
  if (!mine) {
    return;
  }
  bool high = i >= STRIPE;
  int number = pair + (high ? D / 2 : 0);
  v = v * angle.x + (high ? other : -other) * angle.y;
  if (of.head < s.heads) {
    s.queries[(static_cast<size_t>(row) * s.heads + of.head) * D + number] = __float2bfloat16_rn(v);
    return;
  }
  int slot = b.slots[row];
  if (slot < 0) {
    return;
  }
  bool is_key = of.head < s.heads + s.kv_heads;
  int head = of.head - s.heads - (is_key ? 0 : s.kv_heads);
  size_t to = ((static_cast<size_t>(slot / BLOCK_TOKENS) * s.kv_heads + head) * BLOCK_TOKENS +
               slot % BLOCK_TOKENS) * D + number;
  put(static_cast<K *>(is_key ? layer.keys : layer.values) + to, v,
      quotient(1.0f, is_key ? layer.key_scale : layer.value_scale));
}

// The crew's way through a step. W: of weights; K: of keys and values.
template <typename W, typename K, int D>
__device__ __forceinline__ void work(const Step &s, const Block &b) {
  Turn turn;
  unsigned barriers = 0;
  int sums_at = 0;
  uint32_t sums_parity = 0;
  auto multiply_by = [&](Product p, auto build) {
    multiply_all<W, D>(s, b, turn, sums_at, sums_parity, p, build);
  };
  auto ask_for = [&](const float *weight) {
    int at = (blockIdx.x + threadIdx.x * gridDim.x) * 32;
    if (at < s.hidden) {
      ask_into_l2(weight + at);
    }
  };
  // What memory has to bring comes behind all weights that were asked for before: it is asked for a
  // product earlier.
  Ahead<K, D> ahead(s, b);
  ahead.ask(b.layers[0]);
  for (int l = 0; l < s.layer_count; l++) {
    const Layer &layer = b.layers[l];
    float *attended_largest = s.largest + l % 2 * 2 * MOST_ROWS;
    float *gated_largest = attended_largest + MOST_ROWS;
    multiply_by(QKV, [&](int, int) {
      ask_for_weight(s, b, layer.attention_norm);
      if (l > 0) {
        await_grid(s, barriers);
      } else {
        await_copies<0>();
        crew_barrier();
      }
      norm_rows<W>(s, b, layer.qkv_input);
      ask_for(layer.feed_norm);
    });
    EarlyTile<K, D> early(layer, b, ahead);
    await_grid(s, barriers);
    attend_all<K, D>(s, b, layer, ahead, early,
                     sizeof(W) == 1 && layer.o_input == 0.0f ? attended_largest : nullptr);
    crew_barrier();
    if (threadIdx.x == 0) {
      count_in(s.counts);
    }
    await_grid(s, barriers);
    multiply_by(O, [&](int from, int end) {
      take_rows<W>(s, b, s.attended, s.heads * D, from / static_cast<int>(sizeof(W)),
                   end / static_cast<int>(sizeof(W)), attended_largest, layer.o_input);
    });
    multiply_by(GATE_UP, [&](int, int) {
      ask_for_weight(s, b, layer.feed_norm);
      await_grid(s, barriers);
      norm_rows<W>(s, b, layer.gate_up_input);
      if (l + 1 < s.layer_count) {
        ask_for(b.layers[l + 1].attention_norm);
        ahead.ask(b.layers[l + 1]);
      } else {
        ask_for(s.last_norm);
      }
    });
    await_grid(s, barriers);
    multiply_by(DOWN, [&](int from, int end) {
      take_rows<W>(s, b, s.gated, s.inner, from / static_cast<int>(sizeof(W)),
                   end / static_cast<int>(sizeof(W)), gated_largest, layer.down_input);
    });
  }
  multiply_all<bf16, D>(s, b, turn, sums_at, sums_parity, LOGITS, [&](int, int) {
    ask_for_weight(s, b, s.last_norm);
    await_grid(s, barriers);
    norm_rows<bf16>(s, b, 0.0f);
  });
}

// The storers' way: what is made of each product's sums.
template <typename W, typename K, int D>
__device__ __forceinline__ void put_away(const Step &s, const Block &b) {
  Turn turn;
  int sums_at = 0;
  uint32_t sums_parity = 0;
  int me = threadIdx.x - CREW;
  int outputs = s.rows * UNIT;
  // Rounded as where each product leaves its result in memory.
  auto scaled = [&](float sum, float scale, int row) {
    float whole = sizeof(W) == 1 ? sum * (scale * b.row_scales[row]) : sum;
    return __bfloat162float(__float2bfloat16_rn(whole));
  };
  auto nothing = [](int, int, int) { return make_float2(0.0f, 0.0f); };
  // Of an output of queries or keys: cosine and sine.
  auto angle = [&](int unit, int row, int i) {
    OfHead<D> of(unit);
    int at = row * (D / 2) + of.pair + i % STRIPE;
    return of.head < s.heads + s.kv_heads ? make_float2(s.cos[at], s.sin[at]) : make_float2(1.0f, 0.0f);
  };
  auto residual = [&](int unit, int row, int i) {
    return make_float2(
        __bfloat162float(fresh(s.state + static_cast<size_t>(row) * s.hidden + unit * UNIT + i)), 0.0f);
  };
  for (int l = 0; l < s.layer_count; l++) {
    const Layer &layer = b.layers[l];
    float *largest = s.largest + l % 2 * 2 * MOST_ROWS;
    float *gated_largest = largest + MOST_ROWS;
    if (blockIdx.x == 0 && me < 2 * MOST_ROWS) {
      largest[me] = 0.0f; // the layer before last read it
    }
    auto add = [&](float scale) {
      return [&, scale](int unit, int row, int i, float sum, float2 known, bool mine) {
        if (mine) {
          store(s.state, static_cast<size_t>(row) * s.hidden + unit * UNIT + i,
                known.x + scaled(sum, scale, row));
        }
      };
    };
    store_all<W, D>(s, b, turn, sums_at, sums_parity, QKV, angle,
                    [&](int unit, int row, int i, float sum, float2 known, bool mine) {
                      int head = unit / (D / UNIT);
                      float scale = head < s.heads                ? layer.q_scale
                                    : head < s.heads + s.kv_heads ? layer.k_scale
                                                                  : layer.v_scale;
                      store_qkv<K, D>(s, b, layer, unit, row, i, scaled(sum, scale, row), known, mine);
                    });
    all_stored(s);
    workers_barrier(); // attention
    store_all<W, D>(s, b, turn, sums_at, sums_parity, O, residual, add(layer.o_scale));
    all_stored(s);
    bool own_scale = sizeof(W) == 1 && layer.down_input == 0.0f;
    for (int j = me; j < outputs; j += STORERS) {
      b.tops[j] = 0.0f;
    }
    store_all<W, D>(s, b, turn, sums_at, sums_parity, GATE_UP, nothing,
                    [&](int unit, int row, int i, float sum, float2, bool mine) {
                      float v = scaled(sum, i < STRIPE ? layer.gate_scale : layer.up_scale, row);
                      float up = __shfl_xor_sync(ALL, v, STRIPE);
                      if (mine && i < STRIPE) {
                        bf16 rounded = __float2bfloat16_rn(silu(v) * up);
                        s.gated[static_cast<size_t>(row) * s.inner + unit * STRIPE + i] = rounded;
                        if (own_scale) {
                          float *top = b.tops + row * UNIT + i;
                          *top = fmaxf(*top, fabsf(__bfloat162float(rounded)));
                        }
                      }
                    });
    for (int j = me; own_scale && j - static_cast<int>(threadIdx.x) % WARP < outputs; j += STORERS) {
      float top = j < outputs ? b.tops[j] : 0.0f;
#pragma unroll
      for (int offset = UNIT / 2; offset > 0; offset /= 2) {
        top = fmaxf(top, __shfl_xor_sync(ALL, top, offset));
      }
      if (j < outputs && j % UNIT == 0) {
        raise_maximum(gated_largest + j / UNIT, top);
      }
    }
    all_stored(s);
    store_all<W, D>(s, b, turn, sums_at, sums_parity, DOWN, residual, add(layer.down_scale));
    all_stored(s);
  }
  store_all<bf16, D>(s, b, turn, sums_at, sums_parity, LOGITS, nothing,
                     [&](int unit, int row, int i, float sum, float2, bool mine) {
                       int at = unit * UNIT + i;
                       if (mine && at < s.vocab) {
                         s.logits[static_cast<size_t>(row) * s.vocab + at] = sum;
                       }
                     });
  // Nobody waits any more once all are done: the next step begins from zero.
  if (me == 0 && count_in_and_look(s.counts + 1) + 1 == gridDim.x) {
    s.counts[0] = 0;
    s.counts[1] = 0;
  }
}

template <typename W, typename K, int D>
__device__ __forceinline__ void whole_step(char *memory, const Step &s) {
  admit_next(); // drawing is set up meanwhile
  Block b;
  char *next = memory;
  auto part = [&](int bytes) {
    char *at = next;
    next += bytes;
    return at;
  };
  int rows = s.rows;
  b.full = reinterpret_cast<Gate *>(part(MOST_SLOTS * sizeof(Gate)));
  b.empty = reinterpret_cast<Gate *>(part(MOST_SLOTS * sizeof(Gate)));
  b.summed = reinterpret_cast<Gate *>(part(4 * sizeof(Gate)));
  b.stored = reinterpret_cast<Gate *>(part(4 * sizeof(Gate)));
  b.ahead = reinterpret_cast<size_t *>(part(2 * CREW_WARPS * sizeof(size_t)));
  b.tags = reinterpret_cast<int *>(part(MOST_SLOTS * sizeof(int)));
  b.sum_tags = reinterpret_cast<int *>(part(4 * sizeof(int)));
  b.scratch = reinterpret_cast<float *>(part(2 * CREW_WARPS * sizeof(float)));
  b.stretch = reinterpret_cast<int *>(part(sizeof(int)));
  b.last = reinterpret_cast<int *>(part(sizeof(int)));
  b.in_flight = reinterpret_cast<int *>(part(sizeof(int)));
  b.pieces = reinterpret_cast<int *>(part((rows + 1) * sizeof(int)));
  b.row_scales = reinterpret_cast<float *>(part(rows * sizeof(float)));
  b.contexts = reinterpret_cast<int *>(part(rows * sizeof(int)));
  b.begins = reinterpret_cast<int *>(part(rows * sizeof(int)));
  b.slots = reinterpret_cast<int *>(part(rows * sizeof(int)));
  b.tops = reinterpret_cast<float *>(part(UNIT * rows * sizeof(float)));
  next += -(next - memory) & (PART - 1);
  b.layers = reinterpret_cast<Layer *>(part(s.layer_count * sizeof(Layer)));
  b.sums = reinterpret_cast<float *>(part(SUM_BUFFERS * CREW_WARPS * rows * sums_of(rows) * sizeof(float)));
  int widest = max(max(s.hidden, s.inner), s.heads * D);
  bool segments = s.x_stride < 2 * widest + STRETCH;
  b.held = reinterpret_cast<float *>(part(segments ? MOST_HELD * UNIT * rows * sizeof(float) : 0));
  b.x = part(max(rows * s.x_stride, CREW_WARPS * (s.heads / s.kv_heads) * (D + 2) * 4));
  int behind = 2 * s.hidden + STRETCH; // of x's first row
  bool within = behind + s.hidden * static_cast<int>(sizeof(float)) <= s.x_stride;
  b.norm = reinterpret_cast<float *>(within ? b.x + behind : part(s.hidden * sizeof(float)));
  // Copies in bulk to places that are no multiples of 64 bytes take longer.
  b.queue = next + (-(next - memory) & (STRETCH - 1));

  int words = s.layer_count * static_cast<int>(sizeof(Layer) / sizeof(uint2));
  for (int i = threadIdx.x; i < words; i += THREADS) {
    reinterpret_cast<uint2 *>(b.layers)[i] = reinterpret_cast<const uint2 *>(s.layers)[i];
  }
  if (threadIdx.x == 0) {
    for (int i = 0; i < s.slots_of_queue; i++) {
      make_gate(b.full + i, ASK_WARPS);
      make_gate(b.empty + i, CREW_WARPS);
    }
    for (int i = 0; i < SUM_BUFFERS; i++) {
      make_gate(b.summed + i, CREW_WARPS);
      make_gate(b.stored + i, STORE_WARPS);
    }
    gates_made();
    *b.in_flight = IN_FLIGHT;
  } else if (threadIdx.x == CREW) {
    Pieces::plan(s, b);
  }
  __syncthreads();
  if (threadIdx.x < CREW) {
    work<W, K, D>(s, b);
  } else if (threadIdx.x < WORKERS) {
    put_away<W, K, D>(s, b);
  } else {
    Turn turn;
    for (int l = 0; l < s.layer_count; l++) {
      for (int p = QKV; p <= DOWN; p++) {
        ask<W, D>(s, b, turn, l, static_cast<Product>(p));
      }
    }
    ask<bf16, D>(s, b, turn, s.layer_count, LOGITS);
  }
}

#define WHOLE_STEP(NAME, W, K, D)                                                                 \
  extern "C" __global__ void __launch_bounds__(THREADS, 1) NAME(const __grid_constant__ Step step) { \
    extern __shared__ __align__(16) bf16 memory[];                                                \
    whole_step<W, K, D>(reinterpret_cast<char *>(memory), step);                                  \
  }

WHOLE_STEP(whole_step_bf16_bf16_64, bf16, bf16, 64)
WHOLE_STEP(whole_step_bf16_fp8_64, bf16, e4m3, 64)
WHOLE_STEP(whole_step_fp8_bf16_64, e4m3, bf16, 64)
WHOLE_STEP(whole_step_fp8_fp8_64, e4m3, e4m3, 64)
WHOLE_STEP(whole_step_bf16_fp8_128, bf16, e4m3, 128)
WHOLE_STEP(whole_step_fp8_bf16_128, e4m3, bf16, 128)
WHOLE_STEP(whole_step_bf16_bf16_128, bf16, bf16, 128)
WHOLE_STEP(whole_step_fp8_fp8_128, e4m3, e4m3, 128)

#endif
