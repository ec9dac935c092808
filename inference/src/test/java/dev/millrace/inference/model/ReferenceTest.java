package dev.millrace.inference.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.backend.KvCache;
import dev.millrace.inference.backend.KvFormat;
import dev.millrace.inference.backend.Step;
import dev.millrace.inference.backend.cpu.CpuBackend;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Small random checkpoints against the logits that transformers (Llama) and a plain torch network
 * (nemotron-nas) computed from the same files; see src/test/python/reference_checkpoints.py.
 */
public class ReferenceTest {
  static final Path CHECKPOINTS = Path.of("src/test/resources/checkpoints");
  private static final int BLOCKS = 20;

  /** A new backend; the test closes it. */
  protected Backend open() {
    return new CpuBackend(2);
  }

  /** Largest relative error of a position's logits. */
  protected double mostError() {
    return 1e-4;
  }

  /** Positions of each checkpoint whose best token must be clear, by that error. */
  protected int clearPositions() {
    return 150;
  }

  /** Largest relative error of a position's logits where FP8 rounds on the way. */
  protected double mostFp8Error() {
    return 2e-2;
  }

  /** Whether the backend keeps keys and values in FP8 when it is asked to. */
  protected boolean hasFp8Cache() {
    return false;
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "llama-plain-bf16",
        "llama-llama3-f32-tied",
        "llama-yarn-f16-sharded",
        "llama-biases-bf16",
        "nemotron-nas-bf16"
      })
  void shouldComputeTheReferenceLogits(String name) throws IOException {
    compare(name, "logits.f32", KvFormat.NATIVE, mostError(), clearPositions());
  }

  @Test
  void shouldComputeTheReferenceLogitsOfAnFp8Checkpoint() throws IOException {
    compare("nemotron-nas-fp8", "logits.f32", KvFormat.NATIVE, mostFp8Error(), 10);
  }

  @Test
  void shouldComputeTheReferenceLogitsOfAnFp8Cache() throws IOException {
    assumeTrue(hasFp8Cache(), "this backend has no such cache");
    compare("nemotron-nas-fp8", "logits-fp8-cache.f32", KvFormat.FP8, mostFp8Error(), 10);
  }

  private void compare(
      String name, String logits, KvFormat format, double mostError, int clearPositions)
      throws IOException {
    Path folder = CHECKPOINTS.resolve(name);
    int[] tokens = ints(folder.resolve("reference/tokens.i32"));
    float[] expected = floats(folder.resolve("reference").resolve(logits));
    int vocab = expected.length / tokens.length;
    float[] actual = logits(new ModelSource.Folder(folder), format, tokens, 77);

    double worst = 0;
    int greedyChecked = 0;
    for (int p = 0; p < tokens.length; p++) {
      double error = relativeError(actual, expected, p * vocab, vocab);
      worst = Math.max(worst, error);
      int best = best(expected, p * vocab, vocab, -1);
      int second = best(expected, p * vocab, vocab, best);
      double gap = expected[p * vocab + best] - expected[p * vocab + second];
      if (gap > 2 * mostError * norm(expected, p * vocab, vocab)) {
        greedyChecked++;
        assertThat(best(actual, p * vocab, vocab, -1)).as("greedy at %d", p).isEqualTo(best);
      }
    }
    assertThat(worst).as("largest relative error of a position").isLessThan(mostError);
    assertThat(greedyChecked).as("positions with a clear best").isGreaterThan(clearPositions);
    System.out.printf("%s: largest relative error %.2e%n", name, worst);
  }

  /** Every position's logits, computed in chunks of uneven size over scattered blocks. */
  private float[] logits(ModelSource source, KvFormat format, int[] tokens, int chunk) {
    try (Backend backend = open();
        Model model = Models.load(source, backend)) {
      int vocab = model.config().vocabSize();
      KvCache cache = model.kvCache(BLOCKS, format);
      TestSequence sequence = TestSequence.shuffled(tokens, 3, 7);
      float[] all = new float[tokens.length * vocab];
      for (int from = 0; from < tokens.length; from += chunk) {
        int to = Math.min(tokens.length, from + chunk);
        Step step =
            backend.begin(
                TestSequence.batch(List.of(new TestSequence.Part(sequence, from, to))), null);
        float[] part = model.forward(step, cache).toHost(to - from);
        System.arraycopy(part, 0, all, from * vocab, part.length);
      }
      return all;
    }
  }

  private static double relativeError(float[] actual, float[] expected, int at, int n) {
    double difference = 0;
    for (int i = at; i < at + n; i++) {
      double d = (double) actual[i] - expected[i];
      difference += d * d;
    }
    return Math.sqrt(difference) / norm(expected, at, n);
  }

  private static double norm(float[] x, int at, int n) {
    double sum = 0;
    for (int i = at; i < at + n; i++) {
      sum += (double) x[i] * x[i];
    }
    return Math.sqrt(sum);
  }

  private static int best(float[] x, int at, int n, int except) {
    int best = -1;
    for (int i = 0; i < n; i++) {
      if (i != except && (best < 0 || x[at + i] > x[at + best])) {
        best = i;
      }
    }
    return best;
  }

  private static int[] ints(Path file) throws IOException {
    int[] out = new int[(int) (Files.size(file) / 4)];
    ByteBuffer.wrap(Files.readAllBytes(file)).order(ByteOrder.LITTLE_ENDIAN).asIntBuffer().get(out);
    return out;
  }

  private static float[] floats(Path file) throws IOException {
    float[] out = new float[(int) (Files.size(file) / 4)];
    ByteBuffer.wrap(Files.readAllBytes(file))
        .order(ByteOrder.LITTLE_ENDIAN)
        .asFloatBuffer()
        .get(out);
    return out;
  }
}
