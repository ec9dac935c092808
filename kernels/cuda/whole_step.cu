// A decode step of few rows as one kernel: all layers of a Llama network, from the embedded rows to
// the logits.
//
// What such a step takes is the time to read the weights, so their way into shared memory never
// stops. One warp of each block does nothing but ask for them, in a queue as deep as the memory
// allows, over the ends of products, layers and waits: where weights lie depends on nothing. The
// others, the crew, multiply what has come. Between two products all blocks wait for each other, for
// each reads all of what the one before made; meanwhile the queue fills.
//
// A product's outputs are dealt out in units of 16, two stripes of 8 rows of weight: what an epilogue
// needs together (the two halves of a head that turn, a gate and its up) is in one unit. The warps of
// the crew share a unit's columns out among them, and their sums are added in a fixed order, so
// that a row comes out the same in any company. Rows of inputs are held in shared memory, of wide
// ones a segment at a time.
//
// The blocks must all run at once (a cooperative launch), one on each multiprocessor.

#include "block.cuh"
#include "bulk.cuh"
#include "fp8.cuh"
#include "mma.cuh"

#ifdef BULK_COPIES

// The launcher knows these numbers too.
constexpr int CREW_WARPS = 8;
constexpr int CREW = CREW_WARPS * WARP;
constexpr int STORE_WARPS = 3;
constexpr int STORERS = STORE_WARPS * WARP;
constexpr int WORKERS = CREW + STORERS;
constexpr int THREADS = WORKERS + WARP;
constexpr int MOST_ROWS = 8;
constexpr int STRIPE = 8;
constexpr int UNIT = 2 * STRIPE;
constexpr int PART = 16;          // bytes that a thread takes of a row at once
constexpr int STRETCH = 4 * PART; // and the four threads that share a row
constexpr int CHUNK = 2048; // of a row of weight, that the queue brings at once
constexpr int ACROSS = STRETCH * CREW_WARPS; // what the crew takes of a row at once
constexpr int EACH_CHUNK = CHUNK / ACROSS;   // and so a thread of a chunk
constexpr int ROW_BYTES = CHUNK + STRETCH; // apart, so that eight threads meet no bank twice
constexpr int SLOT = UNIT * ROW_BYTES;
constexpr int SUMS = UNIT + 4; // of a row of x, so far apart that a warp's meet no bank twice
constexpr int BLOCK_TOKENS = 16;
constexpr int LEAST_STRETCH = 256; // tokens of a piece of attention
constexpr int MOST_SLOTS = 16;
constexpr int SUM_BUFFERS = 3;
constexpr int MOST_HELD = 8;       // units of a product in segments

// A layer; rows of matrices are their outputs, and lie one behind another.
struct Layer {
  const char *q, *k, *v, *o, *gate, *up, *down;
  const float *attention_norm, *feed_norm;
  void *keys, *values; // [block][kvHead][16 tokens][headDim]
  // Of e4m3: what sums are multiplied by, and what inputs are divided by, 0 for a row's own scale.
  float q_scale, k_scale, v_scale, o_scale, gate_scale, up_scale, down_scale;
  float qkv_input, o_input, gate_up_input, down_input;
  float key_scale, value_scale; // of e4m3 keys and values
  float none;
};

// What a network and a step are. Rows of activations are contiguous.
struct Step {
  const Layer *layers;
  const float *last_norm;
  const char *output; // bfloat16 [vocab][hidden]
  const float *cos, *sin; // [rows][headDim / 2]
  const int *slots;   // [rows], -1: no token
  const int *begin;   // [rows]: the row's index in context_length, and times max_blocks in block_table
  const int *context_length;
  const int *block_table;
  bf16 *state;    // [rows][hidden]: the embedded rows, then the residual
  bf16 *queries;  // [rows][heads * headDim]
  bf16 *attended; // likewise
  bf16 *gated;    // [rows][inner]
  float *logits;  // [rows][vocab]
  float *partial; // [pieces][group][headDim], then [pieces][group] logarithms of sums
  float *largest; // [2 layers][2][MOST_ROWS]: of attended and gated
  unsigned *counts; // zeros: of the grid, of those that are done, then of pieces [MOST_ROWS][kv heads],
                    // then of units that were drawn, [layers] of gates and 1 of logits
  int layer_count, rows, hidden, inner, heads, kv_heads, vocab, max_blocks;
  int x_stride, slots_of_queue;
  float epsilon;
};

enum Product { QKV, O, GATE_UP, DOWN, LOGITS };

// The queue of weights and the block's other memory.
struct Block {
  char *queue;
  Gate *full, *empty;      // of the queue
  Gate *summed, *stored;   // of sums
  int *tags, *sum_tags;    // what is in a slot of the queue, and in sums
  Layer *layers;
  char *x;           // [rows][x_stride], numbers of two bytes
  float *sums;       // [SUM_BUFFERS][CREW_WARPS][rows][SUMS]
  float *held;       // [MOST_HELD][rows * UNIT]
  float *tops;       // [rows * UNIT]
  float *scratch;    // [2][CREW_WARPS]
  float *row_scales; // [MOST_ROWS]
  int *pieces;       // [MOST_ROWS + 1]: attention's, of the rows before; their length; a flag
  int *contexts;     // [MOST_ROWS]: how long, 0 of a row that is no token
  int *begins;       // [MOST_ROWS]: as in Step
};

__device__ __forceinline__ void crew_barrier() { part_barrier<1, CREW>(); }
__device__ __forceinline__ void storers_barrier() { part_barrier<2, STORERS>(); }
__device__ __forceinline__ void workers_barrier() { part_barrier<3, WORKERS>(); }

// Bytes of a row of a weight whose part of x is in memory at once.
template <typename W>
__device__ __forceinline__ int segment_of(const Step &s, int bytes) {
  int room = (s.x_stride - STRETCH) / 2 * static_cast<int>(sizeof(W));
  return bytes <= room ? bytes : room / CHUNK * CHUNK;
}

__device__ __forceinline__ int units_of(const Step &s, Product p, int head_dim) {
  return p == QKV       ? (s.heads + 2 * s.kv_heads) * head_dim / UNIT
         : p == GATE_UP ? s.inner / STRIPE
         : p == LOGITS  ? (s.vocab + UNIT - 1) / UNIT
                        : s.hidden / UNIT;
}

__device__ __forceinline__ int inputs_of(const Step &s, Product p, int head_dim) {
  return p == O ? s.heads * head_dim : p == DOWN ? s.inner : s.hidden;
}

// A unit of the matrices that turn: which head of queries, keys and values it is of, and the first
// of its pairs.
template <int D>
struct OfHead {
  int head, pair;
  __device__ __forceinline__ explicit OfHead(int unit)
      : head(unit / (D / UNIT)), pair(unit % (D / UNIT) * STRIPE) {}
};

template <int D>
__device__ __forceinline__ const char *weight_row(const Step &s, const Layer &layer, Product p,
                                                  int unit, int i, size_t bytes) {
  int stripe = i / STRIPE;
  int r = i % STRIPE;
  if (p == QKV) {
    OfHead<D> of(unit);
    const char *matrix = layer.q;
    int head = of.head;
    if (head >= s.heads + s.kv_heads) {
      matrix = layer.v, head -= s.heads + s.kv_heads;
    } else if (head >= s.heads) {
      matrix = layer.k, head -= s.heads;
    }
    return matrix + (head * D + stripe * (D / 2) + of.pair + r) * bytes;
  }
  if (p == GATE_UP) {
    return (stripe == 0 ? layer.gate : layer.up) + (unit * STRIPE + r) * bytes;
  }
  if (p == LOGITS) {
    return s.output + min(unit * UNIT + i, s.vocab - 1) * bytes;
  }
  return (p == O ? layer.o : layer.down) + (unit * UNIT + i) * bytes;
}

// Where the queue is, and which block begins with the next product's first unit: units are dealt out
// round and round, so that over a step all blocks have as many.
struct Turn {
  int slot = 0;
  uint32_t parity = 0;
  int dealt = 0;
  __device__ __forceinline__ void next_slot(int slots) {
    if (++slot == slots) {
      slot = 0;
      parity ^= 1;
    }
  }
  __device__ __forceinline__ int first() const {
    int grid = gridDim.x;
    return (static_cast<int>(blockIdx.x) + grid - dealt) % grid;
  }
  __device__ __forceinline__ void deal(Product p, int units) {
    if (!drawn(p)) {
      dealt = (dealt + units) % gridDim.x;
    }
  }

  // Where units are many, a block draws the next one when it asks for one's weights: not all get them
  // equally fast.
  static __device__ __forceinline__ bool drawn(Product p) { return p == GATE_UP || p == LOGITS; }
};

// A unit, and whether another one of the product follows.
__device__ __forceinline__ int tag_of(int unit, bool more) { return 2 * unit + more; }

// The warp that asks for weights: all of a step's, in the order in which the crew takes them.
template <typename W, int D>
__device__ __forceinline__ void ask(const Step &s, const Block &b, Turn &turn, int l, Product p) {
  const Layer &layer = b.layers[min(l, s.layer_count - 1)];
  unsigned *drawn = s.counts + 2 + MOST_ROWS * s.kv_heads + l;
  int lane = threadIdx.x % WARP;
  int units = units_of(s, p, D);
  int grid = gridDim.x;
  int bytes = inputs_of(s, p, D) * static_cast<int>(sizeof(W));
  int segment = segment_of<W>(s, bytes);
  for (int from = 0; from < bytes; from += segment) {
    int end = min(bytes, from + segment);
    // Where units are drawn that is done two ahead, so that nobody waits for the count.
    auto after = [&](int unit) {
      if (!turn.drawn(p)) {
        return unit + grid;
      }
      return lane == 0 ? grid + static_cast<int>(atomicAdd(drawn, 1u)) : 0;
    };
    int next = after(turn.first());
    for (int unit = turn.first(), then; unit < units; unit = __shfl_sync(ALL, next, 0), next = then) {
      then = after(next);
      const char *row = lane < UNIT ? weight_row<D>(s, layer, p, unit, lane, bytes) : nullptr;
      for (int at = from; at < end; at += CHUNK) {
        int count = min(CHUNK, end - at);
        await(b.empty + turn.slot, turn.parity ^ 1);
        Gate *full = b.full + turn.slot;
        if (lane == 0) {
          b.tags[turn.slot] = tag_of(unit, at + CHUNK < end || next < units);
          arrive_expecting(full, UNIT * count);
        }
        __syncwarp();
        if (lane < UNIT) {
          copy_bulk(b.queue + turn.slot * SLOT + lane * ROW_BYTES, row + at, count, full);
        }
        turn.next_slot(s.slots_of_queue);
      }
    }
  }
  turn.deal(p, units);
}

__device__ __forceinline__ uint32_t word(const uint4 &part, int j) {
  return j == 0 ? part.x : j == 1 ? part.y : j == 2 ? part.z : part.w;
}

// What a thread multiplies at once: parts of rows g and g + 8 of the weight, and of row g of x, as
// numbers of two bytes.
template <typename W>
struct Parts {
  static constexpr int X = 2 / sizeof(W);
  uint4 low, high, x[X];
};

// c += weight * x, four numbers of each row at a time: one part's products wait for each other, so
// those of several are called in turn. Numbers of e4m3 become IEEE halves, which hold all of them.
__device__ __forceinline__ void multiply(float (&c)[4], const Parts<e4m3> &p, int j) {
  uint32_t a[4];
  widen(word(p.low, j), a[0], a[2]);
  widen(word(p.high, j), a[1], a[3]);
  mma_half(c, a, word(p.x[j / 2], j % 2 * 2), word(p.x[j / 2], j % 2 * 2 + 1));
}

__device__ __forceinline__ void multiply(float (&c)[4], const Parts<bf16> &p, int j) {
  if (j % 2 == 0) {
    uint32_t a[4] = {word(p.low, j), word(p.high, j), word(p.low, j + 1), word(p.high, j + 1)};
    mma(c, a, word(p.x[0], j), word(p.x[0], j + 1));
  }
}

// Two parts.
template <typename W>
__device__ __forceinline__ void multiply(float (&c)[4][4], const Parts<W> &p, const Parts<W> &q) {
#pragma unroll
  for (int j = 0; j < 4; j++) {
    int k = sizeof(W) == 1 ? j % 2 : j / 2;
    multiply(c[k], p, j);
    multiply(c[2 + k], q, j);
  }
}

// Where eight numbers of x from vector v on lie in a row: a thread's 16 of e4m3 are two 16 bytes,
// and four threads' first ones follow one another.
template <typename W>
__device__ __forceinline__ int place_of(int v) {
  return sizeof(W) == 1 ? v / 8 * 128 + v % 2 * 64 + v % 8 / 2 * 16 : v * 16;
}

// The crew's side of a product. build(from, end): puts the numbers of x that belong to these bytes
// of a row of weight into memory.
template <typename W, int D, typename Build>
__device__ __forceinline__ void multiply_all(const Step &s, const Block &b, Turn &turn, int &sums_at,
                                             uint32_t &sums_parity, Product p, Build build) {
  constexpr int X = Parts<W>::X;
  int warp = threadIdx.x / WARP;
  int lane = threadIdx.x % WARP;
  int g = lane / 4;
  int t = lane % 4;
  int rows = s.rows;
  int units = units_of(s, p, D);
  int bytes = inputs_of(s, p, D) * static_cast<int>(sizeof(W));
  int segment = segment_of<W>(s, bytes);
  int column = warp * STRETCH + t * PART;
  bool has_row = g < rows;
  uint4 none = make_uint4(0, 0, 0, 0);
  for (int from = 0; from < bytes; from += segment) {
    int end = min(bytes, from + segment);
    build(from, end);
    const char *x = b.x + g * s.x_stride + warp * STRETCH * X + t * PART;
    // Part i of the chunk at `at`.
    auto take = [&](Parts<W> &part, int at, int i) {
      const char *come = b.queue + turn.slot * SLOT + g * ROW_BYTES + column + i * ACROSS;
      bool there = at + column + i * ACROSS < end;
      part.low = there ? *reinterpret_cast<const uint4 *>(come) : none;
      part.high = there ? *reinterpret_cast<const uint4 *>(come + STRIPE * ROW_BYTES) : none;
#pragma unroll
      for (int k = 0; k < X; k++) {
        part.x[k] = there && has_row ? *reinterpret_cast<const uint4 *>(
                                           x + (at - from + i * ACROSS) * X + k * STRETCH)
                                     : none;
      }
    };
    auto taken = [&] {
      __syncwarp();
      if (lane == 0) {
        arrive(b.empty + turn.slot);
      }
      turn.next_slot(s.slots_of_queue);
    };
    if (turn.first() < units) {
      Parts<W> parts[EACH_CHUNK];
      await(b.full + turn.slot, turn.parity);
      int tag = b.tags[turn.slot];
#pragma unroll
      for (int i = 0; i < EACH_CHUNK; i++) {
        take(parts[i], from, i);
      }
      taken();
      for (bool more = true; more;) {
        int unit = tag / 2;
        float c[4][4] = {};
        for (int at = from; at < end; at += CHUNK) {
          // The next chunk's parts are read as this one's are multiplied, if it has come; otherwise
          // there is time.
          int next = at + CHUNK < end ? at + CHUNK : from;
          more = tag % 2 != 0;
          bool soon = more && has_come(b.full + turn.slot, turn.parity);
#pragma unroll
          for (int i = 0; i < EACH_CHUNK; i += 2) {
            multiply(c, parts[i], parts[i + 1]);
            if (soon) {
              take(parts[i], next, i);
              take(parts[i + 1], next, i + 1);
            }
          }
          if (more && !soon) {
            await(b.full + turn.slot, turn.parity);
#pragma unroll
            for (int i = 0; i < EACH_CHUNK; i++) {
              take(parts[i], next, i);
            }
          }
          if (more) {
            tag = b.tags[turn.slot];
            taken();
          }
        }
        await(b.stored + sums_at, sums_parity ^ 1);
        float *sums = b.sums + sums_at * CREW_WARPS * rows * SUMS;
#pragma unroll
        for (int j = 0; j < 4; j++) {
          int row = 2 * t + j % 2;
          float sum = c[0][j];
#pragma unroll
          for (int i = 1; i < 4; i++) {
            sum += c[i][j];
          }
          if (row < rows) {
            sums[(warp * rows + row) * SUMS + j / 2 * STRIPE + g] = sum;
          }
        }
        if (threadIdx.x == 0) {
          b.sum_tags[sums_at] = tag_of(unit, more);
        }
        __syncwarp();
        if (lane == 0) {
          arrive(b.summed + sums_at);
        }
        sums_at = (sums_at + 1) % SUM_BUFFERS;
        sums_parity ^= sums_at == 0;
      }
    }
    if (end < bytes) {
      crew_barrier(); // x is read no more
    }
  }
  turn.deal(p, units);
}

// The storers' side. before(unit, row, i): what is wanted to be known early; store(unit, row, i, sum,
// known, mine): output i of the unit, by lanes i and i + 8 of a half of a warp at the same time.
template <typename W, int D, typename Before, typename Store>
__device__ __forceinline__ void store_all(const Step &s, const Block &b, Turn &turn, int &sums_at,
                                          uint32_t &sums_parity, Product p, Before before,
                                          Store store) {
  int units = units_of(s, p, D);
  int bytes = inputs_of(s, p, D) * static_cast<int>(sizeof(W));
  int segment = segment_of<W>(s, bytes);
  int rows = s.rows;
  int outputs = rows * UNIT;
  int lane = threadIdx.x % WARP;
  int mine_first = threadIdx.x - CREW;
  auto early = [&](int unit) {
    return mine_first < outputs && unit < units
               ? before(unit, mine_first / UNIT, mine_first % UNIT)
               : 0.0f;
  };
  for (int from = 0; from < bytes; from += segment) {
    if (turn.first() >= units) {
      break;
    }
    // Of units that are drawn nobody wants to know anything early.
    float known = early(turn.first());
    int n = 0;
    for (bool more = true; more; n++) {
      float then = early(turn.first() + (n + 1) * gridDim.x);
      await(b.summed + sums_at, sums_parity);
      int unit = b.sum_tags[sums_at] / 2;
      more = b.sum_tags[sums_at] % 2 != 0;
      const float *sums = b.sums + sums_at * CREW_WARPS * rows * SUMS;
      // Whole warps: lanes without an output take part in shuffles.
      for (int j = mine_first; j - lane < outputs; j += STORERS) {
        bool mine = j < outputs;
        int row = mine ? j / UNIT : 0;
        int i = j % UNIT;
        float sum = 0.0f;
#pragma unroll
        for (int k = 0; k < CREW_WARPS; k++) {
          sum += sums[(k * rows + row) * SUMS + i];
        }
        if (segment < bytes && mine) {
          float *held = b.held + n * outputs + j;
          sum += from == 0 ? 0.0f : *held;
          *held = sum;
        }
        if (from + segment >= bytes) {
          store(unit, row, i, sum, j == mine_first || !mine ? known : before(unit, row, i), mine);
        }
      }
      __syncwarp();
      if (lane == 0) {
        arrive(b.stored + sums_at);
      }
      sums_at = (sums_at + 1) % SUM_BUFFERS;
      sums_parity ^= sums_at == 0;
      known = then;
    }
  }
  turn.deal(p, units);
}

// Waits for all blocks, by the crew; what they wrote can be seen then. barriers: those before.
__device__ __forceinline__ void await_grid(const Step &s, unsigned &barriers) {
  barriers++;
  if (threadIdx.x == 0) {
    await_count(s.counts, barriers * gridDim.x);
  }
  workers_barrier();
}

// What the storers wrote is there for whoever waits.
__device__ __forceinline__ void all_stored(const Step &s) {
  storers_barrier();
  if (threadIdx.x == CREW) {
    count_in(s.counts);
  }
  workers_barrier();
}

__device__ __forceinline__ uint32_t two_halves(float low, float high, float inverse) {
  return halves(to_e4m3x2(low * inverse, high * inverse));
}

// Eight numbers as the crew multiplies them: bfloat16, or halves of what e4m3 keeps of them.
template <typename W>
__device__ __forceinline__ void keep8(char *row, int vector, const float (&v)[VECTOR],
                                      float inverse) {
  uint4 raw;
  if (sizeof(W) == 1) {
    raw = make_uint4(two_halves(v[0], v[1], inverse), two_halves(v[2], v[3], inverse),
                     two_halves(v[4], v[5], inverse), two_halves(v[6], v[7], inverse));
  } else {
    raw = make_uint4(pack(v[0], v[1]), pack(v[2], v[3]), pack(v[4], v[5]), pack(v[6], v[7]));
  }
  *reinterpret_cast<uint4 *>(row + place_of<W>(vector)) = raw;
}

__device__ __forceinline__ const uint4 *vectors_of(const bf16 *rows, int row, int width) {
  return reinterpret_cast<const uint4 *>(rows + static_cast<size_t>(row) * width);
}

// Which of x's rows a warp of the crew makes, and which of its vectors a thread.
struct OfRow {
  int row, first, step;
  __device__ __forceinline__ explicit OfRow(int rows) {
    int warp = threadIdx.x / WARP;
    int warps = rows == 1 ? CREW_WARPS : rows == 2 ? CREW_WARPS / 2 : rows <= 4 ? CREW_WARPS / 4 : 1;
    row = warp / warps;
    first = warp % warps * WARP + threadIdx.x % WARP;
    step = warps * WARP;
  }
};

// What a thread asks for at once of a row.
constexpr int BATCH = 8;

// What a norm multiplies by; a thread's first numbers are there before the rows are.
struct NormWeight {
  static constexpr int HELD = 2;
  const float *all;
  float first[HELD][VECTOR];

  __device__ __forceinline__ NormWeight(const Step &s, const float *weight) : all(weight) {
    OfRow of(s.rows);
#pragma unroll
    for (int k = 0; k < HELD; k++) {
      int i = of.first + k * of.step;
      if (i < s.hidden / VECTOR) {
        load8(weight + i * VECTOR, first[k]);
      }
    }
  }

  // Of a thread's vector k, which is vector i of the row.
  __device__ __forceinline__ void take(int k, int i, float (&w)[VECTOR]) const {
    if (k < HELD) {
#pragma unroll
      for (int j = 0; j < VECTOR; j++) {
        w[j] = k == 0 ? first[0][j] : first[1][j];
      }
    } else {
      load8(all + i * VECTOR, w);
    }
  }
};

// x = the root-mean-square norms of all rows of the state. fixed: as in Layer. In between a row lies
// in x as it was, and each thread reads back what it wrote.
template <typename W>
__device__ __forceinline__ void norm_rows(const Step &s, const Block &b,
                                          const NormWeight &weight, float fixed) {
  int warp = threadIdx.x / WARP;
  int vectors = s.hidden / VECTOR;
  OfRow of(s.rows);
  bool busy = of.row < s.rows;
  bool own_scale = sizeof(W) == 1 && fixed == 0.0f;
  char *x = b.x + of.row * s.x_stride;
  float squares = 0.0f, largest = 0.0f;
  for (int first = busy ? of.first : vectors; first < vectors; first += BATCH * of.step) {
    const uint4 *from = vectors_of(s.state, of.row, s.hidden) + first;
    uint4 raw[BATCH];
#pragma unroll
    for (int k = 0; k < BATCH; k++) {
      if (first + k * of.step < vectors) {
        raw[k] = fresh(from + k * of.step);
      }
    }
#pragma unroll
    for (int k = 0; k < BATCH; k++) {
      int i = first + k * of.step;
      if (i < vectors) {
        *reinterpret_cast<uint4 *>(x + place_of<W>(i)) = raw[k];
        float v[VECTOR];
        load8(reinterpret_cast<const bf16 *>(&raw[k]), v);
#pragma unroll
        for (int j = 0; j < VECTOR; j++) {
          squares += v[j] * v[j];
        }
        if (own_scale) {
          float w[VECTOR];
          weight.take(first == of.first ? k : BATCH, i, w);
#pragma unroll
          for (int j = 0; j < VECTOR; j++) {
            largest = fmaxf(largest, fabsf(v[j] * w[j]));
          }
        }
      }
    }
  }
  squares = warp_reduce(squares, [](float a, float c) { return a + c; });
  largest = warp_reduce(largest, [](float a, float c) { return fmaxf(a, c); });
  if (of.step > WARP) {
    if (threadIdx.x % WARP == 0) {
      b.scratch[warp] = squares;
      b.scratch[CREW_WARPS + warp] = largest;
    }
    crew_barrier();
    int warps = of.step / WARP;
    int first = warp / warps * warps;
    squares = 0.0f;
    for (int i = first; i < first + warps; i++) {
      squares += b.scratch[i];
      largest = fmaxf(largest, b.scratch[CREW_WARPS + i]);
    }
  }
  if (busy) {
    float scale = rsqrtf(squares / s.hidden + s.epsilon);
    float divisor = 1.0f;
    if (sizeof(W) == 1) {
      divisor = own_scale ? e4m3_scale(largest * scale) : fixed;
      if (of.first == 0) {
        b.row_scales[of.row] = divisor;
      }
    }
    float inverse = 1.0f / divisor;
    int k = 0;
#pragma unroll 2
    for (int i = of.first; i < vectors; i += of.step, k++) {
      float v[VECTOR], w[VECTOR];
      load8(reinterpret_cast<const bf16 *>(x + place_of<W>(i)), v);
      weight.take(k, i, w);
#pragma unroll
      for (int j = 0; j < VECTOR; j++) {
        v[j] *= scale * w[j];
      }
      keep8<W>(x, i, v, inverse);
    }
  }
  crew_barrier();
}

// x = columns [from, end) of rows that other blocks made. largest: of each row.
template <typename W>
__device__ __forceinline__ void take_rows(const Step &s, const Block &b, const bf16 *rows, int width,
                                          int from, int end, const float *largest, float fixed) {
  OfRow of(s.rows);
  if (of.row < s.rows) {
    float divisor = sizeof(W) > 1 ? 1.0f : fixed > 0.0f ? fixed : fresh(largest + of.row);
    const uint4 *row = vectors_of(rows, of.row, width) + from / VECTOR;
    int count = (end - from) / VECTOR;
    for (int first = of.first; first < count; first += BATCH * of.step) {
      uint4 raw[BATCH];
#pragma unroll
      for (int k = 0; k < BATCH; k++) {
        if (first + k * of.step < count) {
          raw[k] = fresh(row + first + k * of.step);
        }
      }
      if (first == of.first && sizeof(W) == 1) {
        divisor = fixed > 0.0f ? fixed : e4m3_scale(divisor); // only now: loads do not wait for it
        if (first == 0) {
          b.row_scales[of.row] = divisor;
        }
      }
      float inverse = 1.0f / divisor;
#pragma unroll
      for (int k = 0; k < BATCH; k++) {
        if (first + k * of.step < count) {
          float v[VECTOR];
          load8(reinterpret_cast<const bf16 *>(&raw[k]), v);
          keep8<W>(b.x + of.row * s.x_stride, first + k * of.step, v, inverse);
        }
      }
    }
  }
  crew_barrier();
}

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
    p.stretch = b.pieces[MOST_ROWS + 1];
    p.all = b.pieces[s.rows];
    return p;
  }

  // By one thread.
  __device__ static void plan(const Step &s, const Block &b) {
    long long tokens = 0;
    for (int r = 0; r < s.rows; r++) {
      b.begins[r] = s.begin[r];
      b.contexts[r] = s.slots[r] < 0 ? 0 : s.context_length[s.begin[r]];
      tokens += b.contexts[r];
    }
    long long each = (tokens * s.kv_heads + gridDim.x - 1) / gridDim.x;
    each = (each + LEAST_STRETCH - 1) / LEAST_STRETCH * LEAST_STRETCH;
    int stretch = static_cast<int>(max(each, static_cast<long long>(LEAST_STRETCH)));
    b.pieces[0] = 0;
    for (int r = 0; r < s.rows; r++) {
      b.pieces[r + 1] = b.pieces[r] + (b.contexts[r] + stretch - 1) / stretch * s.kv_heads;
    }
    b.pieces[MOST_ROWS + 1] = stretch;
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
  bool any = false;
  size_t blocks[2]; // its first two

  __device__ __forceinline__ Ahead(const Step &s, const Block &b) {
    Pieces pieces = Pieces::of(s, b);
    if (static_cast<int>(blockIdx.x) < pieces.all) {
      any = true;
      Piece<K, D> piece(s, b, pieces, blockIdx.x);
#pragma unroll
      for (int i = 0; i < 2; i++) {
        int at = piece.from + (threadIdx.x / WARP + i * CREW_WARPS) * BLOCK_TOKENS;
        blocks[i] = at < piece.to ? piece.block_at(s, at) : ~static_cast<size_t>(0);
      }
    }
  }

  // Asks for what earlier steps left there.
  __device__ __forceinline__ void ask(const Layer &layer) const {
    constexpr int LINE = 128;
    int lane = threadIdx.x % WARP * LINE;
#pragma unroll
    for (int i = 0; i < 2; i++) {
      if (any && blocks[i] != ~static_cast<size_t>(0)) {
        for (int at = lane; at < BLOCK_TOKENS * D * static_cast<int>(sizeof(K)); at += WARP * LINE) {
          ask_into_l2(reinterpret_cast<const char *>(static_cast<const K *>(layer.keys) + blocks[i]) +
                      at);
          ask_into_l2(
              reinterpret_cast<const char *>(static_cast<const K *>(layer.values) + blocks[i]) + at);
        }
      }
    }
  }
};

// Leaves a number of what is attended, and its row's largest.
__device__ __forceinline__ void leave_attended(const Step &s, int row, int at, float v, bool there,
                                               float *largest) {
  bf16 rounded = __float2bfloat16_rn(v);
  if (there) {
    s.attended[at] = rounded;
  }
  if (largest != nullptr) {
    float top = warp_reduce(there ? fabsf(__bfloat162float(rounded)) : 0.0f,
                            [](float a, float c) { return fmaxf(a, c); });
    if (threadIdx.x % WARP == 0) {
      raise_maximum(largest + row, top);
    }
  }
}

// memory: [CREW_WARPS][group][D] in the place of x, then sums and largest, each [CREW_WARPS][group].
template <typename K, int D>
__device__ __forceinline__ void attend_all(const Step &s, const Block &b, const Layer &layer,
                                           const Ahead<K, D> &ahead, float *largest) {
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
      bool first_piece = i == static_cast<int>(blockIdx.x);
      auto block_at = [&](int at, int n) {
        return first_piece && n < 2 ? ahead.blocks[n] : piece.block_at(s, at);
      };
      int at = piece.from + warp * BLOCK_TOKENS;
      typename Share<K, D>::Tile tile;
      size_t block = block_at(at, 0);
      tile.take_keys(keys + block);
      tile.take_values(values + block, piece.to - at);
      share.begin(g < group ? s.queries + first + g * D : nullptr);
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
    for (int j = threadIdx.x; j < (count + WARP - 1) / WARP * WARP; j += CREW) {
      int head = min(j, count - 1) / D;
      float factors[CREW_WARPS];
      float top = -INFINITY;
#pragma unroll
      for (int w = 0; w < CREW_WARPS; w++) {
        factors[w] = w < warps ? tops[w * group + head] : -INFINITY;
        top = fmaxf(top, factors[w]);
      }
      float sum = 0.0f, value = 0.0f;
#pragma unroll
      for (int w = 0; w < CREW_WARPS; w++) {
        if (w < warps) {
          float factor = power_of_two(factors[w] - top);
          sum += sums[w * group + head] * factor;
          value += shares[w * count + min(j, count - 1)] * factor;
        }
      }
      value *= value_scale / sum;
      if (whole) {
        leave_attended(s, piece.row, first + j, value, j < count, largest);
      } else if (j < count) {
        partial[j] = value;
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
      b.pieces[MOST_ROWS + 2] =
          count_in_and_look(count_of) + 1 == static_cast<unsigned>(piece.parts);
    }
    crew_barrier();
    if (b.pieces[MOST_ROWS + 2]) {
      int one = pieces.before[piece.row] + piece.head;
      for (int j = threadIdx.x; j < (count + WARP - 1) / WARP * WARP; j += CREW) {
        int head = min(j, count - 1) / D;
        float top = -INFINITY;
        for (int n = 0; n < piece.parts; n++) {
          top = fmaxf(top, fresh(weights + (one + n * s.kv_heads) * group + head));
        }
        float sum = 0.0f, value = 0.0f;
        for (int n = 0; n < piece.parts; n++) {
          size_t at = one + n * s.kv_heads;
          float factor = exp2f(fresh(weights + at * group + head) - top);
          sum += factor;
          value += factor * fresh(s.partial + at * count + min(j, count - 1));
        }
        leave_attended(s, piece.row, first + j, value / sum, j < count, largest);
      }
      if (threadIdx.x == 0) {
        *count_of = 0;
      }
    }
    crew_barrier();
  }
}

// The fast forms err by a few units of the last place of a float.
__device__ __forceinline__ float silu(float v) { return __fdividef(v, 1.0f + __expf(-v)); }

__device__ __forceinline__ void put(bf16 *p, float v, float) { *p = __float2bfloat16_rn(v); }
__device__ __forceinline__ void put(e4m3 *p, float v, float inverse) { *p = to_e4m3(v * inverse); }

// An output of queries, keys or values: turned, and stored where it belongs.
template <typename K, int D>
__device__ __forceinline__ void store_qkv(const Step &s, const Layer &layer, int unit, int row, int i,
                                          float v, bool mine) {
  OfHead<D> of(unit);
  int pair = of.pair + i % STRIPE;
  float other = __shfl_xor_sync(ALL, v, STRIPE);
  if (!mine) {
    return;
  }
  bool high = i >= STRIPE;
  int number = pair + (high ? D / 2 : 0);
  if (of.head < s.heads + s.kv_heads) {
    float c = s.cos[row * (D / 2) + pair], n = s.sin[row * (D / 2) + pair];
    v = high ? v * c + other * n : v * c - other * n;
  }
  if (of.head < s.heads) {
    s.queries[(static_cast<size_t>(row) * s.heads + of.head) * D + number] = __float2bfloat16_rn(v);
    return;
  }
  int slot = s.slots[row];
  if (slot < 0) {
    return;
  }
  bool is_key = of.head < s.heads + s.kv_heads;
  int head = of.head - s.heads - (is_key ? 0 : s.kv_heads);
  size_t to = ((static_cast<size_t>(slot / BLOCK_TOKENS) * s.kv_heads + head) * BLOCK_TOKENS +
               slot % BLOCK_TOKENS) * D + number;
  put(static_cast<K *>(is_key ? layer.keys : layer.values) + to, v,
      1.0f / (is_key ? layer.key_scale : layer.value_scale));
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
      NormWeight weight(s, layer.attention_norm);
      if (l > 0) {
        await_grid(s, barriers);
      }
      norm_rows<W>(s, b, weight, layer.qkv_input);
      ask_for(layer.feed_norm);
    });
    await_grid(s, barriers);
    attend_all<K, D>(s, b, layer, ahead,
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
      NormWeight weight(s, layer.feed_norm);
      await_grid(s, barriers);
      norm_rows<W>(s, b, weight, layer.gate_up_input);
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
    NormWeight weight(s, s.last_norm);
    await_grid(s, barriers);
    norm_rows<bf16>(s, b, weight, 0.0f);
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
  auto scaled = [&](float sum, float scale, int row) {
    return sizeof(W) == 1 ? sum * (scale * b.row_scales[row]) : sum;
  };
  auto nothing = [](int, int, int) { return 0.0f; };
  auto residual = [&](int unit, int row, int i) {
    return __bfloat162float(fresh(s.state + static_cast<size_t>(row) * s.hidden + unit * UNIT + i));
  };
  for (int l = 0; l < s.layer_count; l++) {
    const Layer &layer = b.layers[l];
    float *largest = s.largest + l % 2 * 2 * MOST_ROWS;
    float *gated_largest = largest + MOST_ROWS;
    if (blockIdx.x == 0 && me < 2 * MOST_ROWS) {
      largest[me] = 0.0f; // the layer before last read it
    }
    auto add = [&](float scale) {
      return [&, scale](int unit, int row, int i, float sum, float known, bool mine) {
        if (mine) {
          store(s.state, static_cast<size_t>(row) * s.hidden + unit * UNIT + i,
                known + scaled(sum, scale, row));
        }
      };
    };
    store_all<W, D>(s, b, turn, sums_at, sums_parity, QKV, nothing,
                    [&](int unit, int row, int i, float sum, float, bool mine) {
                      int head = unit / (D / UNIT);
                      float scale = head < s.heads                ? layer.q_scale
                                    : head < s.heads + s.kv_heads ? layer.k_scale
                                                                  : layer.v_scale;
                      store_qkv<K, D>(s, layer, unit, row, i, scaled(sum, scale, row), mine);
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
                    [&](int unit, int row, int i, float sum, float, bool mine) {
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
                     [&](int unit, int row, int i, float sum, float, bool mine) {
                       int at = unit * UNIT + i;
                       if (mine && at < s.vocab) {
                         s.logits[static_cast<size_t>(row) * s.vocab + at] = sum;
                       }
                     });
  // Nobody waits any more once all are done: the next step begins from zero.
  if (me == 0 && count_in_and_look(s.counts + 1) + 1 == gridDim.x) {
    s.counts[0] = 0;
    s.counts[1] = 0;
    for (int l = 0; l <= s.layer_count; l++) {
      s.counts[2 + MOST_ROWS * s.kv_heads + l] = 0;
    }
  }
}

template <typename W, typename K, int D>
__device__ __forceinline__ void whole_step(char *memory, const Step &s) {
  Block b;
  char *next = memory;
  auto part = [&](int bytes) {
    char *at = next;
    next += bytes;
    return at;
  };
  b.full = reinterpret_cast<Gate *>(part(MOST_SLOTS * sizeof(Gate)));
  b.empty = reinterpret_cast<Gate *>(part(MOST_SLOTS * sizeof(Gate)));
  b.summed = reinterpret_cast<Gate *>(part(4 * sizeof(Gate)));
  b.stored = reinterpret_cast<Gate *>(part(4 * sizeof(Gate)));
  b.tags = reinterpret_cast<int *>(part(MOST_SLOTS * sizeof(int)));
  b.sum_tags = reinterpret_cast<int *>(part(4 * sizeof(int)));
  b.tops = reinterpret_cast<float *>(part(UNIT * MOST_ROWS * sizeof(float)));
  b.scratch = reinterpret_cast<float *>(part(2 * CREW_WARPS * sizeof(float)));
  b.row_scales = reinterpret_cast<float *>(part(MOST_ROWS * sizeof(float)));
  b.pieces = reinterpret_cast<int *>(part(12 * sizeof(int)));
  b.contexts = reinterpret_cast<int *>(part(MOST_ROWS * sizeof(int)));
  b.begins = reinterpret_cast<int *>(part(MOST_ROWS * sizeof(int)));
  b.layers = reinterpret_cast<Layer *>(part(s.layer_count * sizeof(Layer)));
  b.sums = reinterpret_cast<float *>(part(SUM_BUFFERS * CREW_WARPS * s.rows * SUMS * sizeof(float)));
  b.held = reinterpret_cast<float *>(part(MOST_HELD * UNIT * s.rows * sizeof(float)));
  b.x = part(max(s.rows * s.x_stride, CREW_WARPS * (s.heads / s.kv_heads) * (D + 2) * 4));
  b.queue = next;

  int words = s.layer_count * static_cast<int>(sizeof(Layer) / sizeof(uint2));
  for (int i = threadIdx.x; i < words; i += THREADS) {
    reinterpret_cast<uint2 *>(b.layers)[i] = reinterpret_cast<const uint2 *>(s.layers)[i];
  }
  if (threadIdx.x == 0) {
    for (int i = 0; i < s.slots_of_queue; i++) {
      make_gate(b.full + i, 1);
      make_gate(b.empty + i, CREW_WARPS);
    }
    for (int i = 0; i < SUM_BUFFERS; i++) {
      make_gate(b.summed + i, CREW_WARPS);
      make_gate(b.stored + i, STORE_WARPS);
    }
    gates_made();
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
WHOLE_STEP(whole_step_bf16_bf16_128, bf16, bf16, 128)
WHOLE_STEP(whole_step_bf16_fp8_128, bf16, e4m3, 128)
WHOLE_STEP(whole_step_fp8_bf16_128, e4m3, bf16, 128)
WHOLE_STEP(whole_step_fp8_fp8_128, e4m3, e4m3, 128)

#endif
