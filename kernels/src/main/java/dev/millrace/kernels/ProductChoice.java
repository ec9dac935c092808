package dev.millrace.kernels;

import java.lang.foreign.MemorySegment;
import java.util.List;
import java.util.function.ToIntFunction;
import org.jspecify.annotations.Nullable;

/**
 * How the fastest of several ways to compute one product is found while a runner opens. What the
 * parts here do the caller lends; it may be called by one thread at a time.
 */
public interface ProductChoice {
  /** How often each way is timed; the least time counts. */
  int REPEATS = 3;

  /**
   * Empties the GPU's cache, in the stream of the products: as it is when a model runs, whose
   * weights are more than it holds.
   */
  void coolDown();

  /** Fetches bytes of the GPU's memory, once the products are done. */
  void fetch(long address, MemorySegment to);

  /**
   * What was found before.
   *
   * @param product its shape and rows
   * @return what {@link #keep} was given; null: nothing that holds
   */
  @Nullable String kept(String product);

  /** Notes the way that was found for a product. */
  void keep(String product, String way);

  /**
   * The one that takes least time; null if none works.
   *
   * @param run gives a way to the stream; its status, 0 if that worked
   */
  default <T> @Nullable T fastest(List<T> ways, ToIntFunction<T> run, Stream stream) {
    T best = null;
    float least = Float.MAX_VALUE;
    try (Event start = Event.timing();
        Event end = Event.timing()) {
      for (T way : ways) {
        // What runs for the first time is loaded first.
        if (run.applyAsInt(way) != 0) {
          continue;
        }
        for (int i = 0; i < REPEATS; i++) {
          coolDown();
          start.record(stream);
          int status = run.applyAsInt(way);
          end.record(stream);
          end.synchronize();
          float took = start.millisTo(end);
          if (status == 0 && took < least) {
            least = took;
            best = way;
          }
        }
      }
    }
    return best;
  }
}
