// Runs a kernel's threads as fibers of one thread of the host: each runs until it has to wait.

#include "emulator.h"

#include <memory>

#include "fibers.h"

Index blockIdx, blockDim, gridDim, threadIdx;
char *dynamic_shared;
bool awaited_previous;

namespace {

constexpr size_t STACK = 128 << 10;
constexpr size_t MOST_EXCHANGED = 64;
constexpr int PART_BARRIERS = 16;

// Turns of threads that all wait after which that is for ever: some are left out at random.
constexpr int HOPELESS = 1000;

struct Fiber {
  Context context;
  std::unique_ptr<char[]> stack{new char[STACK]};
  std::vector<std::vector<Copy>> copies;
  bool done;
  // What it waits for, unless that is null.
  Ready ready;
  const void *at;
  uint64_t than;
};

// A copy on its way: so many turns more.
struct Bulk {
  void *to;
  const void *from;
  int bytes;
  void *gate;
  void (*came)(void *, int);
  int turns;
};

struct Warp {
  int arrived = 0;
  uint64_t round = 0;
  std::vector<char> given[2] = {std::vector<char>(32 * MOST_EXCHANGED),
                                std::vector<char>(32 * MOST_EXCHANGED)};
};

// A block that runs, and its threads.
struct Block {
  Index index;
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  std::vector<char> shared;
  std::vector<Bulk> copies;
  int alive = 0;
  // At the barrier of all of its threads, and at those of parts.
  int arrived = 0, part_arrived[PART_BARRIERS] = {};
  uint64_t barriers = 0, part_barriers[PART_BARRIERS] = {};

  char *memory() {
    return reinterpret_cast<char *>((reinterpret_cast<uintptr_t>(shared.data()) + 15) / 16 * 16);
  }
};

std::vector<Block> blocks; // those that run at once; the first runs alone where they need not
Block *block;
Context host;
std::function<void()> kernel;
int current;

// The same numbers each time.
unsigned next_random() {
  static uint64_t state = 1;
  state = state * 6364136223846793005u + 1442695040888963407u;
  return state >> 33;
}

bool differs(const void *at, uint64_t than) { return *static_cast<const uint64_t *>(at) != than; }

void pass_barrier() {
  block->arrived = 0;
  block->barriers++;
}

void run_fiber() {
  kernel();
  block->fibers[current].done = true;
  block->alive--;
  if (block->alive > 0 && block->arrived == block->alive) {
    pass_barrier();
  }
  switch_context(block->fibers[current].context, host);
}

void begin_block(Block &b, Index index, int threads, size_t shared) {
  b.index = index;
  b.alive = threads;
  b.arrived = 0;
  std::fill(b.part_arrived, b.part_arrived + PART_BARRIERS, 0);
  b.copies.clear();
  b.warps.assign((threads + 31) / 32, Warp());
  b.shared.assign(shared + 16, static_cast<char>(0xff)); // no numbers: what is read was written
  if (b.fibers.size() < static_cast<size_t>(threads)) {
    b.fibers.resize(threads);
  }
  for (int i = 0; i < threads; i++) {
    Fiber &fiber = b.fibers[i];
    fiber.copies.assign(1, {});
    fiber.done = false;
    fiber.ready = nullptr;
    make_context(fiber.context, fiber.stack.get(), STACK, run_fiber);
  }
}

void bring_copies(Block &b) {
  for (size_t i = 0; i < b.copies.size();) {
    Bulk &copy = b.copies[i];
    if (--copy.turns > 0) {
      i++;
      continue;
    }
    memcpy(copy.to, copy.from, copy.bytes);
    copy.came(copy.gate, copy.bytes);
    copy = b.copies.back();
    b.copies.pop_back();
  }
}

// Each thread's next turn, if what it waits for has happened; unevenly: some warps miss theirs. Whether
// any had one.
bool turn(Block &b, int threads, bool unevenly) {
  block = &b;
  blockIdx = b.index;
  dynamic_shared = b.memory();
  bool any = !b.copies.empty();
  bring_copies(b);
  for (int warp = 0; warp < threads; warp += 32) {
    if (unevenly && next_random() % 4 == 0) {
      continue;
    }
    for (int i = warp; i < std::min(threads, warp + 32); i++) {
      Fiber &fiber = b.fibers[i];
      if (!fiber.done && (fiber.ready == nullptr || fiber.ready(fiber.at, fiber.than))) {
        any = true;
        fiber.ready = nullptr;
        current = i;
        threadIdx.x = i;
        switch_context(host, fiber.context);
      }
    }
  }
  return any;
}

} // namespace

std::vector<std::vector<Copy>> &begun_copies() { return block->fibers[current].copies; }

void wait_until(Ready ready, const void *at, uint64_t than) {
  if (ready(at, than)) {
    return;
  }
  int me = current;
  Fiber &fiber = block->fibers[me];
  fiber.ready = ready;
  fiber.at = at;
  fiber.than = than;
  switch_context(fiber.context, host);
  threadIdx.x = me;
}

void copy_later(void *to, const void *from, int bytes, void *gate, void (*came)(void *, int)) {
  int turns = 1 + static_cast<int>(next_random() % 8);
  block->copies.push_back({to, from, bytes, gate, came, turns});
}

void block_barrier() {
  uint64_t before = block->barriers;
  if (++block->arrived == block->alive) {
    pass_barrier();
  }
  wait_until(differs, &block->barriers, before);
}

void part_barrier(int id, int threads) {
  uint64_t before = block->part_barriers[id];
  if (++block->part_arrived[id] == threads) {
    block->part_arrived[id] = 0;
    block->part_barriers[id]++;
  }
  wait_until(differs, &block->part_barriers[id], before);
}

const void *warp_exchange(const void *mine, size_t size) {
  if (size > MOST_EXCHANGED) {
    abort();
  }
  Warp &warp = block->warps[current / 32];
  uint64_t round = warp.round;
  char *given = warp.given[round % 2].data();
  memcpy(given + current % 32 * size, mine, size);
  if (++warp.arrived == 32) {
    warp.arrived = 0;
    warp.round++;
  }
  wait_until(differs, &warp.round, round);
  return given;
}

bool launch(unsigned x, unsigned y, int threads, size_t shared, bool together,
            std::function<void()> run) {
  kernel = run;
  awaited_previous = false;
  gridDim = {x, y, 1};
  blockDim = {static_cast<unsigned>(threads), 1, 1};
  size_t at_once = together ? x * y : 1;
  if (blocks.size() < at_once) {
    blocks.resize(at_once);
  }
  if (together) {
    for (unsigned i = 0; i < x; i++) {
      begin_block(blocks[i], {i, 0, 0}, threads, shared);
    }
    int idle = 0;
    for (bool alive = true; alive;) {
      alive = false;
      bool any = false;
      for (unsigned i = 0; i < x; i++) {
        if (blocks[i].alive > 0) {
          alive = true;
          // Some blocks are slower than others.
          any |= next_random() % 4 != 0 && turn(blocks[i], threads, true);
        }
      }
      idle = any ? 0 : idle + 1;
      if (idle == HOPELESS) {
        return false;
      }
    }
    return true;
  }
  for (unsigned j = 0; j < y; j++) {
    for (unsigned i = 0; i < x; i++) {
      begin_block(blocks[0], {i, j, 0}, threads, shared);
      while (blocks[0].alive > 0) {
        if (!turn(blocks[0], threads, false)) {
          return false;
        }
      }
    }
  }
  return true;
}
