// A step's products: who asks for weights, who multiplies by them, who stores what comes of it.
#pragma once

#include "fp8.cuh"
#include "mma.cuh"
#include "step.cuh"

#ifdef BULK_COPIES

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
  int issued = 0, behind = 0; // the slot that was asked for IN_FLIGHT before
  uint32_t behind_parity = 0;
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
    // Where units are drawn that is done two ahead, so that nobody waits for the count; by blocks that
    // have a unit alone, for who has none may be later than the end, which sets the count to zero.
    auto after = [&](int unit) {
      if (!turn.drawn(p)) {
        return unit + grid;
      }
      return lane == 0 ? grid + static_cast<int>(atomicAdd(drawn, 1u)) : 0;
    };
    int next = turn.first() < units ? after(turn.first()) : units;
    for (int unit = turn.first(), then; unit < units; unit = __shfl_sync(ALL, next, 0), next = then) {
      then = after(next);
      const char *row = lane < UNIT ? weight_row<D>(s, layer, p, unit, lane, bytes) : nullptr;
      for (int at = from; at < end; at += CHUNK) {
        int count = min(CHUNK, end - at);
        await(b.empty + turn.slot, turn.parity ^ 1);
        if (turn.issued >= IN_FLIGHT) {
          await(b.full + turn.behind, turn.behind_parity);
          if (++turn.behind == s.slots_of_queue) {
            turn.behind = 0;
            turn.behind_parity ^= 1;
          }
        }
        turn.issued++;
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

#endif
