// What a step as one kernel is asked to do, what a block of it has, and how its parts wait for each other.
#pragma once

#include "block.cuh"
#include "bulk.cuh"
#include "element.cuh"
#include "mma.cuh"

#ifdef BULK_COPIES

// The launcher knows these numbers too.
constexpr int CREW_WARPS = 8;
constexpr int CREW = CREW_WARPS * WARP;
constexpr int STORE_WARPS = 2;
constexpr int STORERS = STORE_WARPS * WARP;
constexpr int WORKERS = CREW + STORERS;
constexpr int ASK_WARPS = 2; // a stripe each: asking for a row takes some 75 clocks
constexpr int THREADS = WORKERS + ASK_WARPS * WARP;
constexpr int MOST_ROWS = 8;
constexpr int STRIPE = 8;
constexpr int UNIT = 2 * STRIPE;
constexpr int PART = 16;          // bytes that a thread takes of a row at once
constexpr int STRETCH = 4 * PART; // and the four threads that share a row
constexpr int CHUNK = 2048; // of a row of weight, that the queue brings at once
constexpr int ACROSS = STRETCH * CREW_WARPS; // what the crew takes of a row at once
constexpr int EACH_CHUNK = CHUNK / ACROSS;   // and so a thread of a chunk
constexpr int SLOT = UNIT * CHUNK + STRETCH; // see place_in_slot
constexpr int BLOCK_TOKENS = 16;
constexpr int LEAST_STRETCH = 128; // tokens of a piece of attention: what the crew takes at once
// Contexts up to here stay in one piece: another such stretch takes less than putting pieces together.
constexpr int LEFT_WHOLE = 384;
constexpr int MOST_SLOTS = 8;
// Slots of the queue that are on their way at once: what is asked for beyond that comes no earlier, but
// queues up before everything else that the multiprocessor asks for. Between products, where all wait
// for small things that other blocks left, the queue has time to fill with fewer.
constexpr int IN_FLIGHT = 2;
constexpr int IN_FLIGHT_BETWEEN = 1;
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
  unsigned *counts; // zeros: of the grid, of those that are done, then of pieces [MOST_ROWS][kv heads]
  int layer_count, rows, hidden, inner, heads, kv_heads, vocab, max_blocks;
  int x_stride, slots_of_queue;
  float epsilon;
};

static_assert(sizeof(Layer) == 144 && sizeof(Step) == 184, "as the launcher writes them");

enum Product { QKV, O, GATE_UP, DOWN, LOGITS };

// The queue of weights and the block's other memory.
struct Block {
  char *queue;
  Gate *full, *empty;      // of the queue
  Gate *summed, *stored;   // of sums
  int *tags, *sum_tags;    // what is in a slot of the queue, and in sums
  Layer *layers;
  char *x;           // [rows][x_stride], numbers of two bytes
  float *norm;       // [hidden]: what the next norm multiplies by; behind x's first row where that has room
  float *sums;       // [SUM_BUFFERS][CREW_WARPS][rows][sums_of(rows)]
  float *held;       // [MOST_HELD][rows * UNIT], of steps whose products are taken in segments
  float *tops;       // [rows * UNIT]
  float *scratch;    // [2][CREW_WARPS]
  float *row_scales; // [rows]
  int *pieces;       // [rows + 1]: attention's, of the rows before
  int *stretch;      // tokens of a piece
  int *last;         // whether this block puts pieces together
  int *contexts;     // [rows]: how long, 0 of a row that is no token
  volatile int *in_flight; // how many slots of the queue may be
  int *begins;       // [rows]: as in Step
  int *slots;        // [rows]: as in Step
  size_t *ahead;     // [2][CREW_WARPS]: see Ahead
};

// Where a row of a unit lies in a slot of the queue. Eight threads that read at once have two rows, an
// even and an odd one, whose bytes must be 64 apart to meet no bank twice: all odd rows are.
__device__ __forceinline__ int place_in_slot(int stripe, int row) {
  return (row % 2 * STRIPE + stripe * (STRIPE / 2) + row / 2) * CHUNK + row % 2 * STRETCH;
}

// Numbers from the sums of a row of x to the next's, so far apart that a warp's meet no bank twice.
__device__ __forceinline__ int sums_of(int rows) { return rows == 1 ? UNIT : UNIT + 4; }

// a / b to two units of the last place.
__device__ __forceinline__ float quotient(float a, float b) { return __fdividef(a, b); }

__device__ __forceinline__ void crew_barrier() { part_barrier<1, CREW>(); }
__device__ __forceinline__ void storers_barrier() { part_barrier<2, STORERS>(); }
__device__ __forceinline__ void workers_barrier() { part_barrier<3, WORKERS>(); }

// Waits for all blocks, by the crew; what they wrote can be seen then. barriers: those before.
__device__ __forceinline__ void await_grid(const Step &s, unsigned &barriers) {
  barriers++;
  if (threadIdx.x == 0) {
    await_count(s.counts, barriers * gridDim.x);
  }
  await_copies<0>(); // of ask_for_weight
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

#endif
