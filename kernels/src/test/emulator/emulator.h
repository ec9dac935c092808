#pragma once

#include <map>
#include <string>
#include <utility>

#include "cuda_bf16.h"

// Runs a kernel on a grid of x times y blocks; together: all of them, in one row, take turns, so that
// they may wait for each other. False: threads wait for what never happens.
bool launch(unsigned x, unsigned y, int threads, size_t shared, bool together,
            std::function<void()> run);

// Whether a thread of the last kernel waited for the kernels before it.
extern bool awaited_previous;

// Kernels by name, called with pointers to their arguments.
struct Kernel {
  std::function<void(void **)> run;
  std::vector<size_t> sizes; // of the arguments
};
std::map<std::string, Kernel> &kernels();

template <typename... A, size_t... I>
void call(void (*kernel)(A...), void **arguments, std::index_sequence<I...>) {
  kernel(*static_cast<A *>(arguments[I])...);
}

template <typename... A>
bool add_kernel(const char *name, void (*kernel)(A...)) {
  kernels()[name] = {[kernel](void **arguments) {
                       call(kernel, arguments, std::index_sequence_for<A...>());
                     },
                     {sizeof(A)...}};
  return true;
}
