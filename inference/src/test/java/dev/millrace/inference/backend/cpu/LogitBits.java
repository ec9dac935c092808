package dev.millrace.inference.backend.cpu;

import dev.millrace.inference.backend.KvCache;
import dev.millrace.inference.backend.Step;
import dev.millrace.inference.model.Model;
import dev.millrace.inference.model.Models;
import dev.millrace.inference.model.TestSequence;
import dev.millrace.inference.model.TestSequence.Part;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;

/** Logits of a fixed sequence, computed in one of many ways that must all give the same bits. */
final class LogitBits {
  private static final int LENGTH = 150;
  private static final int BLOCKS = 40;

  private LogitBits() {}

  /**
   * How to compute.
   *
   * @param chunks sizes of the steps, in turn
   * @param companions other sequences in the same steps
   */
  record Way(int threads, int[] chunks, int companions) {}

  /** [position · vocabulary] bits of every position's logits. */
  static int[] compute(Path checkpoint, Way way) {
    try (CpuBackend backend = new CpuBackend(way.threads);
        Model model = Models.load(checkpoint, backend)) {
      int vocab = model.config().vocabSize();
      KvCache cache = model.kvCache(BLOCKS);
      TestSequence sequence = TestSequence.shuffled(tokens(vocab, 1), 2, way.threads);
      List<TestSequence> others = new ArrayList<>();
      for (int i = 0; i < way.companions; i++) {
        others.add(TestSequence.shuffled(tokens(vocab, 2 + i), 12 + 10 * i, i));
      }
      int[] bits = new int[LENGTH * vocab];
      int from = 0;
      for (int i = 0; from < LENGTH; i++) {
        int to = Math.min(LENGTH, from + way.chunks[i % way.chunks.length]);
        int first = 0;
        List<Part> parts = new ArrayList<>();
        for (int j = 0; j < others.size(); j++) {
          // Before, beside and behind in length; one in front of the sequence in the batch.
          int end = Math.min(LENGTH, Math.max(1, to - 3 * j));
          int begin = Math.min(end - 1, Math.max(0, from - 3 * j));
          parts.add(new Part(others.get(j), begin, end));
          first += j == 0 ? end - begin : 0;
        }
        parts.add(Math.min(1, parts.size()), new Part(sequence, from, to));
        Step step = backend.begin(TestSequence.batch(parts), null);
        float[] logits = model.forward(step, cache).toHost(step.logitRows());
        for (int k = 0; k < (to - from) * vocab; k++) {
          bits[from * vocab + k] = Float.floatToRawIntBits(logits[first * vocab + k]);
        }
        from = to;
      }
      return bits;
    }
  }

  private static int[] tokens(int vocab, long seed) {
    return new Random(seed).ints(LENGTH, 0, vocab).toArray();
  }

  /** Prints a hash of the bits, and the vectors' width: for a JVM of its own. */
  public static void main(String[] args) {
    int hash = java.util.Arrays.hashCode(compute(Path.of(args[0]), new Way(1, new int[] {23}, 0)));
    System.out.println(VectorLanes.WIDTH + " " + hash);
  }
}
