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
  int issued = 0, arrived = 0, behind = 0; // slots, and the one that comes next
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
  __device__ __forceinline__ void deal(int units) {
    dealt = (dealt + units) % gridDim.x;
  }
};

// A unit, and whether another one of the product follows.
__device__ __forceinline__ int tag_of(int unit, bool more) { return 2 * unit + more; }

// A warp that asks for weights: a stripe of all units of a step, in the order in which the crew takes
// them.
template <typename W, int D>
__device__ __forceinline__ void ask(const Step &s, const Block &b, Turn &turn, int l, Product p) {
  const Layer &layer = b.layers[min(l, s.layer_count - 1)];
  int lane = threadIdx.x % WARP;
  int stripe = (threadIdx.x - WORKERS) / WARP;
  int units = units_of(s, p, D);
  int bytes = inputs_of(s, p, D) * static_cast<int>(sizeof(W));
  int segment = segment_of<W>(s, bytes);
  for (int from = 0; from < bytes; from += segment) {
    int end = min(bytes, from + segment);
    for (int unit = turn.first(); unit < units; unit += gridDim.x) {
      const char *row =
          lane < STRIPE ? weight_row<D>(s, layer, p, unit, stripe * STRIPE + lane, bytes) : nullptr;
      bool more = unit + static_cast<int>(gridDim.x) < units;
      for (int at = from; at < end; at += CHUNK) {
        int count = min(CHUNK, end - at);
        await(b.empty + turn.slot, turn.parity ^ 1);
        while (turn.issued - turn.arrived >= *b.in_flight) {
          await(b.full + turn.behind, turn.behind_parity);
          turn.arrived++;
          if (++turn.behind == s.slots_of_queue) {
            turn.behind = 0;
            turn.behind_parity ^= 1;
          }
        }
        turn.issued++;
        Gate *full = b.full + turn.slot;
        if (lane == 0) {
          if (stripe == 0) {
            b.tags[turn.slot] = tag_of(unit, more);
          }
          arrive_expecting(full, STRIPE * count);
        }
        __syncwarp();
        if (lane < STRIPE) {
          copy_bulk(b.queue + turn.slot * SLOT + place_in_slot(stripe, lane), row + at, count, full);
        }
        turn.next_slot(s.slots_of_queue);
      }
    }
  }
  turn.deal(units);
}

// What a thread multiplies at once: parts of rows g and g + 8 of the weight, and of row g of x, as
// numbers of two bytes.
template <typename W>
struct Parts {
  static constexpr int X = 2 / sizeof(W);
  uint4 low, high, x[X];
};

// c += weight * x of one part, c's four by turns: one product waits for the one before it of its own.
// Numbers of e4m3 become IEEE halves, which hold all of them; all of a part's before the first product,
// so that none waits for the registers of another.
__device__ __forceinline__ void multiply(float (&c)[4][4], const Parts<e4m3> &p) {
  uint32_t a[4][4];
#pragma unroll
  for (int j = 0; j < 4; j++) {
    widen(word(p.low, j), a[j][0], a[j][2]);
    widen(word(p.high, j), a[j][1], a[j][3]);
  }
#pragma unroll
  for (int j = 0; j < 4; j++) {
    mma_half(c[j], a[j], word(p.x[j / 2], j % 2 * 2), word(p.x[j / 2], j % 2 * 2 + 1));
  }
}

__device__ __forceinline__ void multiply(float (&c)[4][4], const Parts<bf16> &p) {
#pragma unroll
  for (int j = 0; j < 4; j += 2) {
    uint32_t a[4] = {word(p.low, j), word(p.high, j), word(p.low, j + 1), word(p.high, j + 1)};
    mma(c[j], a, word(p.x[0], j), word(p.x[0], j + 1));
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
  uint4 none = make_uint4(0, 0, 0, 0);
  for (int from = 0; from < bytes; from += segment) {
    int end = min(bytes, from + segment);
    build(from, end);
    // What is multiplied by rows that are not there is not stored: any will do for them.
    const char *x = b.x + min(g, rows - 1) * s.x_stride + warp * STRETCH * X + t * PART;
    if (threadIdx.x == 0) {
      *b.in_flight = IN_FLIGHT;
    }
    if (turn.first() < units) {
      for (bool more = true; more;) {
        int tag = 0;
        float c[4][4] = {};
        for (int at = from; at < end; at += CHUNK) {
          await(b.full + turn.slot, turn.parity);
          tag = b.tags[turn.slot];
          const char *come = b.queue + turn.slot * SLOT + place_in_slot(0, g) + column;
          const char *here = x + (at - from) * X;
          auto take = [&](Parts<W> &part, int i) {
            part.low = *reinterpret_cast<const uint4 *>(come + i * ACROSS);
            part.high = *reinterpret_cast<const uint4 *>(come + i * ACROSS + STRIPE / 2 * CHUNK);
#pragma unroll
            for (int k = 0; k < X; k++) {
              part.x[k] = *reinterpret_cast<const uint4 *>(here + i * ACROSS * X + k * STRETCH);
            }
          };
          Parts<W> parts[EACH_CHUNK];
          if (at + CHUNK <= end) {
#pragma unroll
            for (int i = 0; i < EACH_CHUNK; i++) {
              take(parts[i], i);
            }
          } else {
#pragma unroll
            for (int i = 0; i < EACH_CHUNK; i++) {
              parts[i].low = parts[i].high = none;
#pragma unroll
              for (int k = 0; k < X; k++) {
                parts[i].x[k] = none;
              }
              if (at + column + i * ACROSS < end) {
                take(parts[i], i);
              }
            }
          }
#pragma unroll
          for (int i = 0; i < EACH_CHUNK; i++) {
            multiply(c, parts[i]);
          }
          __syncwarp();
          if (lane == 0) {
            arrive(b.empty + turn.slot);
          }
          turn.next_slot(s.slots_of_queue);
        }
        more = tag % 2 != 0;
        await(b.stored + sums_at, sums_parity ^ 1);
        float *sums = b.sums + sums_at * CREW_WARPS * rows * sums_of(rows);
#pragma unroll
        for (int j = 0; j < 4; j++) {
          int row = 2 * t + j % 2;
          float sum = c[0][j];
#pragma unroll
          for (int i = 1; i < 4; i++) {
            sum += c[i][j];
          }
          if (row < rows) {
            sums[(warp * rows + row) * sums_of(rows) + j / 2 * STRIPE + g] = sum;
          }
        }
        if (threadIdx.x == 0) {
          b.sum_tags[sums_at] = tag;
        }
        __syncwarp();
        if (lane == 0) {
          arrive(b.summed + sums_at);
        }
        sums_at = (sums_at + 1) % SUM_BUFFERS;
        sums_parity ^= sums_at == 0;
      }
    }
    if (threadIdx.x == 0) {
      *b.in_flight = IN_FLIGHT_BETWEEN;
    }
    if (end < bytes) {
      crew_barrier(); // x is read no more
    }
  }
  turn.deal(units);
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
               : make_float2(0.0f, 0.0f);
  };
  for (int from = 0; from < bytes; from += segment) {
    if (turn.first() >= units) {
      break;
    }
    float2 known = early(turn.first());
    int n = 0;
    for (bool more = true; more; n++) {
      float2 then = early(turn.first() + (n + 1) * gridDim.x);
      await(b.summed + sums_at, sums_parity);
      int unit = b.sum_tags[sums_at] / 2;
      more = b.sum_tags[sums_at] % 2 != 0;
      const float *sums = b.sums + sums_at * CREW_WARPS * rows * sums_of(rows);
      // Whole warps: lanes without an output take part in shuffles.
      for (int j = mine_first; j - lane < outputs; j += STORERS) {
        bool mine = j < outputs;
        int row = mine ? j / UNIT : 0;
        int i = j % UNIT;
        float sum = 0.0f;
#pragma unroll
        for (int k = 0; k < CREW_WARPS; k++) {
          sum += sums[(k * rows + row) * sums_of(rows) + i];
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
  turn.deal(units);
}

#endif
