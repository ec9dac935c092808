// Runs a kernel's threads as fibers of one thread of the host: each runs until it has to wait.

#include "emulator.h"

Index blockIdx, blockDim, gridDim, threadIdx;
char *dynamic_shared;
bool awaited_previous;

namespace {

constexpr size_t STACK = 128 << 10;
constexpr size_t MOST_EXCHANGED = 64;

struct Fiber {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(STACK);
  std::vector<std::vector<Copy>> copies;
  bool done;
};

struct Warp {
  int arrived = 0;
  long round = 0;
  std::vector<char> given[2] = {std::vector<char>(32 * MOST_EXCHANGED),
                                std::vector<char>(32 * MOST_EXCHANGED)};
};

// A block that runs, and its threads.
struct Block {
  Index index;
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  std::vector<char> shared;
  int alive = 0;
  // Of all of its threads, and of the first so many.
  int arrived = 0, crew_arrived = 0;
  long barriers = 0, crew_barriers = 0;

  char *memory() {
    return reinterpret_cast<char *>((reinterpret_cast<uintptr_t>(shared.data()) + 15) / 16 * 16);
  }
};

std::vector<Block> blocks; // those that run at once; the first runs alone where they need not
Block *block;
ucontext_t host;
std::function<void()> kernel;
int current;

void wait() {
  Block *mine = block;
  int me = current;
  swapcontext(&mine->fibers[me].context, &host);
  threadIdx.x = me;
}

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
  swapcontext(&block->fibers[current].context, &host);
}

void begin_block(Block &b, Index index, int threads, size_t shared) {
  b.index = index;
  b.alive = threads;
  b.arrived = b.crew_arrived = 0;
  b.warps.assign((threads + 31) / 32, Warp());
  b.shared.assign(shared + 16, static_cast<char>(0xff)); // no numbers: what is read was written
  if (b.fibers.size() < static_cast<size_t>(threads)) {
    b.fibers.resize(threads);
  }
  for (int i = 0; i < threads; i++) {
    Fiber &fiber = b.fibers[i];
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    fiber.copies.assign(1, {});
    fiber.done = false;
    makecontext(&fiber.context, run_fiber, 0);
  }
}

// Each thread's next turn.
void turn(Block &b, int threads) {
  block = &b;
  blockIdx = b.index;
  dynamic_shared = b.memory();
  for (int i = 0; i < threads; i++) {
    if (!b.fibers[i].done) {
      current = i;
      threadIdx.x = i;
      swapcontext(&host, &b.fibers[i].context);
    }
  }
}

} // namespace

std::vector<std::vector<Copy>> &begun_copies() { return block->fibers[current].copies; }

void let_others() { wait(); }

void block_barrier() {
  long before = block->barriers;
  if (++block->arrived == block->alive) {
    pass_barrier();
  }
  while (block->barriers == before) {
    wait();
  }
}

void part_barrier(int threads) {
  long before = block->crew_barriers;
  if (++block->crew_arrived == threads) {
    block->crew_arrived = 0;
    block->crew_barriers++;
  }
  while (block->crew_barriers == before) {
    wait();
  }
}

const void *warp_exchange(const void *mine, size_t size) {
  if (size > MOST_EXCHANGED) {
    abort();
  }
  Warp &warp = block->warps[current / 32];
  long round = warp.round;
  char *given = warp.given[round % 2].data();
  memcpy(given + current % 32 * size, mine, size);
  if (++warp.arrived == 32) {
    warp.arrived = 0;
    warp.round++;
  }
  while (warp.round == round) {
    wait();
  }
  return given;
}

void launch(unsigned x, unsigned y, int threads, size_t shared, bool together,
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
    for (bool any = true; any;) {
      any = false;
      for (unsigned i = 0; i < x; i++) {
        if (blocks[i].alive > 0) {
          turn(blocks[i], threads);
          any = true;
        }
      }
    }
    return;
  }
  for (unsigned j = 0; j < y; j++) {
    for (unsigned i = 0; i < x; i++) {
      begin_block(blocks[0], {i, j, 0}, threads, shared);
      while (blocks[0].alive > 0) {
        turn(blocks[0], threads);
      }
    }
  }
}
