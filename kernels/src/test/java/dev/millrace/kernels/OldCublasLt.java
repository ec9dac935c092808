package dev.millrace.kernels;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.lang.invoke.MethodHandles;
import java.lang.reflect.Method;
import java.util.Arrays;
import java.util.HashSet;
import java.util.Optional;
import java.util.Set;

/**
 * A cuBLASLt from before CUDA 12.9, which knows no modes of scales: setting one fails. It computes
 * nothing. Pointers are numbers to it.
 */
final class OldCublasLt implements SymbolLookup {
  private static final int INVALID_VALUE = 7;

  /** The operations that were made and not destroyed. */
  final Set<Long> operations = new HashSet<>();

  int made;
  int products;
  private final Arena arena;

  OldCublasLt(Arena arena) {
    this.arena = arena;
  }

  /** Functions by their names; every other does nothing and succeeds. */
  private final class Functions {
    int cublasLtMatmulDescCreate(long to, int compute, int type) {
      operations.add((long) ++made);
      return give(to, made);
    }

    int cublasLtMatmulDescDestroy(long operation) {
      return operations.remove(operation) ? 0 : INVALID_VALUE;
    }

    int cublasLtMatmulDescSetAttribute(long operation, int attribute, long value, long bytes) {
      return attribute == 31 || attribute == 32 ? INVALID_VALUE : 0;
    }

    int cublasLtMatmulAlgoGetHeuristic(
        long handle,
        long operation,
        long a,
        long b,
        long c,
        long d,
        long preference,
        int wanted,
        long found,
        long count) {
      MemorySegment.ofAddress(count).reinterpret(4).set(ValueLayout.JAVA_INT, 0, 1);
      return 0;
    }

    int cublasLtMatmul(
        long handle,
        long operation,
        long alpha,
        long a,
        long aLayout,
        long b,
        long bLayout,
        long beta,
        long c,
        long cLayout,
        long d,
        long dLayout,
        long algorithm,
        long workspace,
        long bytes,
        long stream) {
      products++;
      return 0;
    }

    int nothing() {
      return 0;
    }

    private int give(long to, long object) {
      MemorySegment.ofAddress(to).reinterpret(8).set(ValueLayout.JAVA_LONG, 0, object);
      return 0;
    }
  }

  @Override
  public Optional<MemorySegment> find(String name) {
    Method[] all = Functions.class.getDeclaredMethods();
    Method method =
        Arrays.stream(all)
            .filter(m -> m.getName().equals(name))
            .findFirst()
            .orElseGet(
                () ->
                    Arrays.stream(all)
                        .filter(m -> m.getName().equals("nothing"))
                        .findFirst()
                        .orElseThrow());
    try {
      MethodHandle handle = MethodHandles.lookup().unreflect(method).bindTo(new Functions());
      MemoryLayout[] parameters =
          Arrays.stream(method.getParameterTypes())
              .map(t -> t == int.class ? ValueLayout.JAVA_INT : ValueLayout.JAVA_LONG)
              .toArray(MemoryLayout[]::new);
      FunctionDescriptor descriptor = FunctionDescriptor.of(ValueLayout.JAVA_INT, parameters);
      return Optional.of(Linker.nativeLinker().upcallStub(handle, descriptor, arena));
    } catch (IllegalAccessException e) {
      throw new IllegalStateException(e);
    }
  }
}
