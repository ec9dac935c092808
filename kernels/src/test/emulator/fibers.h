// Stacks that take turns on one thread of the host.
#pragma once

#include <cstdint>

#ifdef __x86_64__

// By hand, for swapcontext asks the kernel each time.
struct Context {
  void *stack_pointer;
};

extern "C" void switch_stacks(void **leave, void *enter);
asm(R"(
.text
.local switch_stacks
.type switch_stacks, @function
switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");

inline void switch_context(Context &from, Context &to) {
  switch_stacks(&from.stack_pointer, to.stack_pointer);
}

// run: never returns.
inline void make_context(Context &context, char *stack, size_t bytes, void (*run)()) {
  constexpr int SAVED = 6;
  uintptr_t top = reinterpret_cast<uintptr_t>(stack + bytes) / 16 * 16;
  void **at = reinterpret_cast<void **>(top) - 2; // as if it had been called
  *at = reinterpret_cast<void *>(run);
  for (int i = 0; i < SAVED; i++) {
    *--at = nullptr;
  }
  context.stack_pointer = at;
}

#else

#include <ucontext.h>

struct Context {
  ucontext_t of;
};

inline void switch_context(Context &from, Context &to) { swapcontext(&from.of, &to.of); }

inline void make_context(Context &context, char *stack, size_t bytes, void (*run)()) {
  getcontext(&context.of);
  context.of.uc_stack.ss_sp = stack;
  context.of.uc_stack.ss_size = bytes;
  context.of.uc_link = nullptr;
  makecontext(&context.of, run, 0);
}

#endif
