package dev.millrace.inference.backend.cpu;

import dev.millrace.inference.backend.KvCache;
import dev.millrace.inference.backend.Step;
import dev.millrace.inference.model.Model;
import dev.millrace.inference.model.Models;
import dev.millrace.inference.model.TestSequence;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.Collection;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.VectorOperators;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;
import org.openjdk.jmh.annotations.Warmup;
import org.openjdk.jmh.results.RunResult;
import org.openjdk.jmh.runner.Runner;
import org.openjdk.jmh.runner.RunnerException;
import org.openjdk.jmh.runner.options.OptionsBuilder;

/**
 * How near the CPU backend comes to the machine: decode against a loop that only reads memory,
 * prefill against a loop that only multiplies. Run with
 *
 * <pre>mvn -q -Pbench -pl inference -am test -DskipTests</pre>
 *
 * The model is a random bf16 Llama of {@link RandomLlama#WEIGHT_BYTES} bytes that a step reads
 * once, far more than any cache holds; its file is mapped as any checkpoint's is.
 */
@State(Scope.Benchmark)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MILLISECONDS)
@Warmup(iterations = 3, time = 2)
@Measurement(iterations = 5, time = 2)
@Fork(1)
public class CpuBenchmark {
  private static final int THREADS = Runtime.getRuntime().availableProcessors();
  private static final long READ_BYTES = 1L << 30;
  private static final int PROMPT = 384;
  private static final int CONTEXT = 64;
  private static final int MULTIPLIES = 1_000_000;

  /** The buffer of the read loop. */
  @State(Scope.Benchmark)
  public static class Memory {
    final Arena arena = Arena.ofShared();
    final MemorySegment buffer = arena.allocate(READ_BYTES, 64);
    final Workers workers = new Workers(THREADS);
    final long[] found = new long[THREADS * 8];

    @Setup
    public void fill() {
      buffer.fill((byte) 1);
    }

    @TearDown
    public void close() {
      workers.close();
      arena.close();
    }
  }

  /** The random model, its prompt already in the cache. */
  @State(Scope.Benchmark)
  public static class Llama {
    private final Path folder = RandomLlama.write();
    private final CpuBackend backend = new CpuBackend(THREADS);
    private final Model model = Models.load(folder, backend);
    private final KvCache cache = model.kvCache(PROMPT / 16);
    private final TestSequence sequence =
        new TestSequence(
            IntStream.range(0, PROMPT).map(i -> i * 37 % RandomLlama.VOCAB).toArray(),
            IntStream.range(0, PROMPT / 16).toArray());

    @Setup
    public void fillCache() {
      forward(0, PROMPT);
    }

    float forward(int from, int to) {
      Step step =
          backend.begin(
              TestSequence.lastLogits(List.of(new TestSequence.Part(sequence, from, to))), null);
      return ((CpuTensor) model.forward(step, cache)).data()[0];
    }

    @TearDown
    public void close() throws IOException {
      backend.close();
      model.close();
      RandomLlama.delete(folder);
    }
  }

  /** Every byte of the buffer once, by all threads. */
  @Benchmark
  public long read(Memory memory) {
    memory.workers.run(
        (worker, workers) -> {
          long part = READ_BYTES / workers / 256 * 256;
          memory.found[worker * 8] = xor(memory.buffer, worker * part, part);
        });
    return memory.found[0];
  }

  private static long xor(MemorySegment from, long at, long bytes) {
    IntVector a = IntVector.zero(Lanes.INTS);
    IntVector b = a;
    IntVector c = a;
    IntVector d = a;
    int step = 4 * Lanes.WIDTH;
    for (long i = at; i < at + bytes; i += step * 4L) {
      a = a.lanewise(VectorOperators.XOR, Lanes.loadInts(from, i));
      b = b.lanewise(VectorOperators.XOR, Lanes.loadInts(from, i + step));
      c = c.lanewise(VectorOperators.XOR, Lanes.loadInts(from, i + 2L * step));
      d = d.lanewise(VectorOperators.XOR, Lanes.loadInts(from, i + 3L * step));
    }
    return a.lanewise(VectorOperators.XOR, b)
        .lanewise(VectorOperators.XOR, c.lanewise(VectorOperators.XOR, d))
        .reduceLanes(VectorOperators.XOR);
  }

  /** One token through the whole network. */
  @Benchmark
  public float decode(Llama llama) {
    return llama.forward(CONTEXT, CONTEXT + 1);
  }

  /** A prompt in one step. */
  @Benchmark
  public float prefill(Llama llama) {
    return llama.forward(0, PROMPT);
  }

  /** Multiply-adds between registers, by all threads. */
  @Benchmark
  public long multiply(Memory memory) {
    memory.workers.run(
        (worker, workers) -> memory.found[worker * 8] = Float.floatToIntBits(multiply(MULTIPLIES)));
    return memory.found[0];
  }

  /** Ten independent chains: enough to hide the latency of each. */
  private static float multiply(int count) {
    FloatVector x = FloatVector.broadcast(Lanes.FLOATS, 0.999f);
    FloatVector a0 = x;
    FloatVector a1 = x.add(1f);
    FloatVector a2 = x.add(2f);
    FloatVector a3 = x.add(3f);
    FloatVector a4 = x.add(4f);
    FloatVector a5 = x.add(5f);
    FloatVector a6 = x.add(6f);
    FloatVector a7 = x.add(7f);
    FloatVector a8 = x.add(8f);
    FloatVector a9 = x.add(9f);
    for (int i = 0; i < count; i++) {
      a0 = a0.fma(x, x);
      a1 = a1.fma(x, x);
      a2 = a2.fma(x, x);
      a3 = a3.fma(x, x);
      a4 = a4.fma(x, x);
      a5 = a5.fma(x, x);
      a6 = a6.fma(x, x);
      a7 = a7.fma(x, x);
      a8 = a8.fma(x, x);
      a9 = a9.fma(x, x);
    }
    return a0.add(a1).add(a2).add(a3).add(a4).add(a5).add(a6).add(a7).add(a8).add(a9).lane(0);
  }

  /** Runs all four and sets them in relation. */
  public static void main(String[] args) throws RunnerException {
    Collection<RunResult> results =
        new Runner(
                new OptionsBuilder()
                    .include(CpuBenchmark.class.getName())
                    .jvmArgsAppend(
                        "--add-modules=jdk.incubator.vector",
                        "--enable-native-access=ALL-UNNAMED",
                        "-Xmx4g")
                    .build())
            .run();
    double read = READ_BYTES / millis(results, "read") / 1e6;
    double decode = RandomLlama.WEIGHT_BYTES / millis(results, "decode") / 1e6;
    double multiply =
        2.0 * THREADS * MULTIPLIES * 10 * Lanes.WIDTH / millis(results, "multiply") / 1e6;
    double prefill =
        RandomLlama.multipliesOfPrompt(PROMPT) * 2.0 / millis(results, "prefill") / 1e6;
    System.out.printf(
        "%nThreads %d, vectors of %d floats, bf16 weights of %.0f MB%n",
        THREADS, Lanes.WIDTH, RandomLlama.WEIGHT_BYTES / 1e6);
    System.out.printf("read loop     %7.2f GB/s%n", read);
    System.out.printf(
        "decode        %7.2f GB/s = %.0f %% of the read loop; %.2f tokens/s%n",
        decode, 100 * decode / read, 1000 / millis(results, "decode"));
    System.out.printf("multiply loop %7.1f GFLOP/s%n", multiply);
    System.out.printf(
        "prefill       %7.1f GFLOP/s = %.0f %% of the multiply loop; %.1f tokens/s%n",
        prefill, 100 * prefill / multiply, PROMPT * 1000 / millis(results, "prefill"));
  }

  private static double millis(Collection<RunResult> results, String name) {
    return results.stream()
        .filter(r -> r.getPrimaryResult().getLabel().equals(name))
        .findAny()
        .orElseThrow()
        .getPrimaryResult()
        .getScore();
  }
}
