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

std::vector<Fiber> fibers;
std::vector<Warp> warps;
ucontext_t host;
std::function<void()> kernel;
int current, alive, arrived;
long barriers;

void wait() {
  int me = current;
  swapcontext(&fibers[me].context, &host);
  threadIdx.x = me;
}

void pass_barrier() {
  arrived = 0;
  barriers++;
}

void run_fiber() {
  kernel();
  fibers[current].done = true;
  alive--;
  if (alive > 0 && arrived == alive) {
    pass_barrier();
  }
  swapcontext(&fibers[current].context, &host);
}

void run_block(int threads) {
  alive = threads;
  arrived = 0;
  warps.assign((threads + 31) / 32, Warp());
  for (int i = 0; i < threads; i++) {
    Fiber &fiber = fibers[i];
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    fiber.copies.assign(1, {});
    fiber.done = false;
    makecontext(&fiber.context, run_fiber, 0);
  }
  while (alive > 0) {
    for (int i = 0; i < threads; i++) {
      if (!fibers[i].done) {
        current = i;
        threadIdx.x = i;
        swapcontext(&host, &fibers[i].context);
      }
    }
  }
}

} // namespace

std::vector<std::vector<Copy>> &begun_copies() { return fibers[current].copies; }

void block_barrier() {
  long before = barriers;
  if (++arrived == alive) {
    pass_barrier();
  }
  while (barriers == before) {
    wait();
  }
}

const void *warp_exchange(const void *mine, size_t size) {
  if (size > MOST_EXCHANGED) {
    abort();
  }
  Warp &warp = warps[current / 32];
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

void launch(unsigned x, unsigned y, int threads, size_t shared, std::function<void()> run) {
  std::vector<char> memory(shared + 16);
  uintptr_t address = reinterpret_cast<uintptr_t>(memory.data());
  dynamic_shared = reinterpret_cast<char *>((address + 15) / 16 * 16);
  if (fibers.size() < static_cast<size_t>(threads)) {
    fibers.resize(threads);
  }
  kernel = run;
  awaited_previous = false;
  gridDim = {x, y, 1};
  blockDim = {static_cast<unsigned>(threads), 1, 1};
  for (unsigned j = 0; j < y; j++) {
    for (unsigned i = 0; i < x; i++) {
      blockIdx = {i, j, 0};
      memset(dynamic_shared, 0xff, shared); // no numbers: what is read was written
      run_block(threads);
    }
  }
}
