// The driver's functions that the CUDA backend uses, on the host's memory. Everything is done at
// once; results are those of cuda.h.

#include <map>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <list>
#include <thread>

#include "emulator.h"

namespace {
constexpr int INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, NOT_FOUND = 500,
              LAUNCH_FAILED = 719, CAPTURE_UNSUPPORTED = 900;
void *const STREAM = reinterpret_cast<void *>(7);

// 8 is that of a GPU without units for FP8.
int major_capability() {
  const char *asked = getenv("EMULATED_MAJOR_CAPABILITY");
  return asked == nullptr ? 9 : atoi(asked);
}

// Microseconds that a graph takes on a GPU that computes nothing, to see what the host does; -1 on
// one that computes.
int pretended_micros() {
  static const char *asked = getenv("EMULATED_GRAPH_MICROS");
  return asked == nullptr ? -1 : atoi(asked);
}
bool pretends() { return pretended_micros() >= 0; }

// Promised, not taken: on one that computes nothing as much as an H200 has.
size_t memory() { return static_cast<size_t>(pretends() ? 140 : 40) << 30; }

typedef std::chrono::steady_clock Clock;
struct Event {
  Clock::time_point at;
  bool blocking; // else who waits for it spins
};
Clock::time_point pretended_end;

void pretend_graph() {
  pretended_end =
      std::max(pretended_end, Clock::now()) + std::chrono::microseconds(pretended_micros());
}

int allocate(void **p, size_t bytes) {
  return posix_memalign(p, 4096, bytes) == 0 ? 0 : OUT_OF_MEMORY;
}
} // namespace

std::map<std::string, Kernel> &kernels() {
  static std::map<std::string, Kernel> all;
  return all;
}

typedef unsigned long long Address;

// What a graph does when it is launched, one after another: with the arguments of its recording.
struct Memset {
  Address to;
  size_t pitch;
  unsigned value, element_bytes;
  size_t width, height;
};
struct Node;
typedef std::list<Node> Graph;
struct Node {
  std::function<void()> work;
  bool fills; // else it is a kernel
  Memset fill;
  Graph *graph;
};
static Graph *recording;

static Graph::iterator place(Node *node) {
  return std::find_if(node->graph->begin(), node->graph->end(),
                      [=](Node &other) { return &other == node; });
}

// The driver's way to tell a list: how many there are, and which where it is given room.
static int tell(const std::vector<Node *> &nodes, Node **to, size_t *count) {
  if (to != nullptr) {
    std::copy(nodes.begin(), nodes.end(), to);
  }
  *count = nodes.size();
  return 0;
}

bool record(std::function<void()> work) {
  if (recording != nullptr && !pretends()) {
    recording->push_back({work, false, {}, recording});
  }
  return recording != nullptr || pretends();
}

namespace {
std::map<Address, size_t> &blocks() {
  static std::map<Address, size_t> all;
  return all;
}
} // namespace

// Of the launches since it was last 0.
static int status;

static const char *name_of(Kernel *kernel) {
  for (auto &named : kernels()) {
    if (&named.second == kernel) {
      return named.first.c_str();
    }
  }
  return "a kernel";
}

static void run(Kernel *kernel, unsigned gx, unsigned gy, unsigned threads, unsigned shared,
                bool overlaps, bool together, void **arguments) {
  if (!launch(gx, gy, threads, shared, together, [=] { kernel->run(arguments); })) {
    fprintf(stderr, "emulator: threads of %s wait for what never happens\n", name_of(kernel));
    status = LAUNCH_FAILED;
    return;
  }
  if (overlaps && !awaited_previous) {
    fprintf(stderr, "emulator: %s may overlap and does not call await_previous\n",
            name_of(kernel));
    status = LAUNCH_FAILED;
  }
}

// The driver's description of a kernel in a graph.
struct KernelNode {
  void *function;
  unsigned blocks[3], threads[3], shared;
  void **arguments, **extra;
};

// Bytes that a launch may ask for; of what it may without, 48 KB, a kernel has up to 1 of its own.
static std::map<void *, unsigned> allowed_shared;
constexpr unsigned FREE_SHARED = 47 << 10;

static int launch_kernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                         unsigned by, unsigned bz, unsigned shared, void *stream, bool overlaps,
                         bool together, void **arguments, void **extra) {
  bool valid = stream == STREAM && gx > 0 && gy > 0 && gy <= 65535 && gz == 1 && bx > 0 &&
               bx <= 1024 && by == 1 && bz == 1 && shared <= (227 << 10) && extra == nullptr &&
               (shared <= FREE_SHARED || shared <= allowed_shared[function]);
  if (!valid) {
    return INVALID_VALUE;
  }
  Kernel *kernel = static_cast<Kernel *>(function);
  if (pretends()) {
    // Tokens that nobody draws may be any; the host has them without a copy.
    constexpr int HOST_TOKENS = 6;
    if (strncmp(name_of(kernel), "sample", 6) == 0) {
      memset(*static_cast<int **>(arguments[HOST_TOKENS]), 0, gx * sizeof(int));
    }
    return 0;
  }
  if (recording != nullptr) {
    std::vector<std::vector<char>> values;
    for (size_t i = 0; i < kernel->sizes.size(); i++) {
      const char *value = static_cast<char *>(arguments[i]);
      values.emplace_back(value, value + kernel->sizes[i]);
    }
    return !record([=]() mutable {
      std::vector<void *> pointers;
      for (std::vector<char> &value : values) {
        pointers.push_back(value.data());
      }
      run(kernel, gx, gy, bx, shared, overlaps, together, pointers.data());
    });
  }
  status = 0;
  run(kernel, gx, gy, bx, shared, overlaps, together, arguments);
  return status;
}

extern "C" {
int cuInit(unsigned) { return 0; }
int cuDriverGetVersion(int *version) {
  *version = 13000;
  return 0;
}
int cuDeviceGetCount(int *count) {
  *count = 1;
  return 0;
}
int cuDeviceGet(int *device, int ordinal) {
  *device = ordinal;
  return ordinal == 0 ? 0 : INVALID_DEVICE;
}
int cuDeviceGetName(char *name, int length, int) {
  snprintf(name, length, "an emulated GPU");
  return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int) {
  constexpr int MULTIPROCESSORS = 16, MAJOR = 75, SHARED_BYTES = 97, COOPERATIVE_LAUNCH = 95;
  *value = attribute == MAJOR             ? major_capability()
           : attribute == MULTIPROCESSORS ? 4
           : attribute == COOPERATIVE_LAUNCH ? 1
           : attribute == SHARED_BYTES    ? (major_capability() < 9 ? 163 : 227) << 10
                                          : 0;
  return 0;
}
int cuDevicePrimaryCtxRetain(void **context, int) {
  *context = STREAM;
  return 0;
}
int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
int cuDevicePrimaryCtxRelease(int) { return 0; }
int cuCtxSetCurrent(void *) { return 0; }
int cuMemGetInfo_v2(size_t *free, size_t *total) {
  *free = *total = memory();
  return 0;
}
// Taken when it is touched: a backend takes all that a device has, and uses little of it here.
int cuMemAlloc_v2(Address *p, size_t bytes) {
  void *block = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (block == MAP_FAILED) {
    return OUT_OF_MEMORY;
  }
  *p = reinterpret_cast<Address>(block);
  blocks()[*p] = bytes;
  return 0;
}
int cuMemFree_v2(Address p) {
  munmap(reinterpret_cast<void *>(p), blocks()[p]);
  blocks().erase(p);
  return 0;
}
int cuMemHostAlloc(void **p, size_t bytes, unsigned) { return allocate(p, bytes); }
int cuMemFreeHost(void *p) {
  free(p);
  return 0;
}
int cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, void *) {
  if (recording != nullptr) {
    return CAPTURE_UNSUPPORTED;
  }
  memcpy(reinterpret_cast<void *>(to), from, bytes);
  return 0;
}
int cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, void *) {
  if (recording != nullptr) {
    return CAPTURE_UNSUPPORTED;
  }
  if (pretends()) {
    memset(to, 0, bytes); // what nobody computed may be anything
  } else {
    memcpy(to, reinterpret_cast<void *>(from), bytes);
  }
  return 0;
}
int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void *) {
  if (recording != nullptr) {
    return CAPTURE_UNSUPPORTED;
  }
  memcpy(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from), bytes);
  return 0;
}
int cuMemsetD8Async(Address p, unsigned char value, size_t bytes, void *) {
  if (recording != nullptr) {
    recording->push_back({[=] { memset(reinterpret_cast<void *>(p), value, bytes); },
                          true,
                          {p, 0, value, 1, bytes, 1},
                          recording});
    return 0;
  }
  if (!pretends()) {
    memset(reinterpret_cast<void *>(p), value, bytes);
  }
  return 0;
}
int cuStreamCreate(void **stream, unsigned) {
  *stream = STREAM;
  return 0;
}
int cuStreamDestroy_v2(void *) { return 0; }
int cuStreamSynchronize(void *) { return recording == nullptr ? 0 : CAPTURE_UNSUPPORTED; }
int cuStreamBeginCapture_v2(void *, int) {
  recording = new Graph;
  return 0;
}
int cuStreamEndCapture(void *, Graph **graph) {
  *graph = recording;
  recording = nullptr;
  return 0;
}
int cuGraphGetNodes(Graph *graph, Node **nodes, size_t *count) {
  std::vector<Node *> all;
  for (Node &node : *graph) {
    all.push_back(&node);
  }
  return tell(all, nodes, count);
}
int cuGraphNodeGetType(Node *node, int *type) {
  constexpr int KERNEL = 0, MEMSET = 2;
  *type = node->fills ? MEMSET : KERNEL;
  return 0;
}
int cuGraphMemsetNodeGetParams(Node *node, Memset *fill) {
  *fill = node->fill;
  return node->fills ? 0 : INVALID_VALUE;
}
int cuGraphNodeGetDependencies(Node *node, Node **nodes, size_t *count) {
  auto at = place(node);
  return at == node->graph->begin() ? tell({}, nodes, count)
                                    : tell({&*std::prev(at)}, nodes, count);
}
int cuGraphNodeGetDependentNodes(Node *node, Node **nodes, size_t *count) {
  auto at = std::next(place(node));
  return at == node->graph->end() ? tell({}, nodes, count) : tell({&*at}, nodes, count);
}
int cuGraphAddKernelNode(Node **added, Graph *graph, Node **after, size_t count,
                         const KernelNode *k) {
  Graph made;
  recording = &made;
  int result = launch_kernel(k->function, k->blocks[0], k->blocks[1], k->blocks[2], k->threads[0],
                             k->threads[1], k->threads[2], k->shared, STREAM, false, false,
                             k->arguments, k->extra);
  recording = nullptr;
  if (result != 0 || count > 1) {
    return INVALID_VALUE;
  }
  made.front().graph = graph;
  auto at = count == 0 ? graph->begin() : std::next(place(after[0]));
  *added = &*graph->insert(at, made.front());
  return 0;
}
int cuGraphAddDependencies(Graph *, Node **before, Node **after, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (std::distance(before[i]->graph->begin(), place(before[i])) >=
        std::distance(after[i]->graph->begin(), place(after[i]))) {
      return INVALID_VALUE;
    }
  }
  return 0;
}
int cuGraphDestroyNode(Node *node) {
  node->graph->erase(place(node));
  return 0;
}
int cuGraphInstantiateWithFlags(Graph **executable, Graph *graph, unsigned long long flags) {
  *executable = new Graph(*graph);
  return flags == 0 ? 0 : INVALID_VALUE;
}
int cuGraphUpload(Graph *, void *) { return 0; }
int cuGraphLaunch(Graph *executable, void *) {
  if (pretends()) {
    pretend_graph();
  }
  status = 0;
  for (Node &node : *executable) {
    node.work();
  }
  return status;
}
int cuGraphDestroy(Graph *graph) {
  delete graph;
  return 0;
}
int cuGraphExecDestroy(Graph *executable) {
  delete executable;
  return 0;
}
int cuEventCreate(Event **event, unsigned flags) {
  constexpr unsigned BLOCKING_SYNC = 1;
  *event = new Event{{}, (flags & BLOCKING_SYNC) != 0};
  return 0;
}
int cuEventDestroy_v2(Event *event) {
  delete event;
  return 0;
}
int cuEventRecord(Event *event, void *) {
  event->at = std::max(Clock::now(), pretended_end);
  return 0;
}
int cuEventSynchronize(Event *event) {
  if (event->blocking) {
    std::this_thread::sleep_until(event->at);
  }
  while (Clock::now() < event->at) {
  }
  return 0;
}
int cuEventElapsedTime(float *millis, Event *from, Event *to) {
  *millis = std::chrono::duration<float, std::milli>(to->at - from->at).count();
  return 0;
}
int cuModuleLoadData(void **module, const void *) {
  *module = STREAM;
  return 0;
}
int cuModuleUnload(void *) { return 0; }
int cuModuleGetFunction(void **function, void *, const char *name) {
  auto found = kernels().find(name);
  if (found == kernels().end()) {
    return NOT_FOUND;
  }
  *function = &found->second;
  return 0;
}
int cuFuncSetAttribute(void *function, int attribute, int value) {
  constexpr int MAX_DYNAMIC_SHARED_SIZE_BYTES = 8;
  if (attribute != MAX_DYNAMIC_SHARED_SIZE_BYTES) {
    return INVALID_VALUE;
  }
  allowed_shared[function] = value;
  return 0;
}
int cuFuncGetAttribute(int *value, int attribute, void *) {
  constexpr int PTX_VERSION = 5;
  *value = 10 * major_capability();
  return attribute == PTX_VERSION ? 0 : INVALID_VALUE;
}
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *, int threads, size_t shared) {
  *blocks = threads <= 1024 && shared <= 227 << 10 ? 1 : 0;
  return 0;
}
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                   unsigned bz, unsigned shared, void *stream, void **arguments, void **extra) {
  return launch_kernel(function, gx, gy, gz, bx, by, bz, shared, stream, false, false, arguments, extra);
}
struct LaunchConfig {
  unsigned gx, gy, gz, bx, by, bz, shared;
  void *stream;
  const int *attributes;
  unsigned count;
};
static_assert(sizeof(LaunchConfig) == 56, "as in cuda.h");
// Kernels run one after another: what may overlap does not, but has to wait for those before it.
int cuLaunchKernelEx(const LaunchConfig *c, void *function, void **arguments, void **extra) {
  constexpr int COOPERATIVE = 2, PROGRAMMATIC_STREAM_SERIALIZATION = 6;
  bool together = c->attributes[0] == COOPERATIVE;
  if (c->count != 1 || (!together && c->attributes[0] != PROGRAMMATIC_STREAM_SERIALIZATION) ||
      c->attributes[2] != 1 || (together && (c->gx > 4 || c->gy != 1))) {
    return INVALID_VALUE;
  }
  return launch_kernel(function, c->gx, c->gy, c->gz, c->bx, c->by, c->bz, c->shared, c->stream,
                       !together, together, arguments, extra);
}
}
