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
  private static final int PROMPT = 384;
  private static final int CONTEXT = 64;

  /** The buffer of the read loop. */
  @State(Scope.Benchmark)
  public static class Memory {
    final Arena arena = Arena.ofShared();
    final MemorySegment buffer = arena.allocate(CpuGauge.READ_BYTES, 64);
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
    return CpuGauge.read(memory.workers, memory.buffer, memory.found);
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
    return CpuGauge.multiply(memory.workers, memory.found);
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
    double read = CpuGauge.READ_BYTES / millis(results, "read") / 1e6;
    double decode = RandomLlama.WEIGHT_BYTES / millis(results, "decode") / 1e6;
    double multiply = CpuGauge.flops(THREADS) / millis(results, "multiply") / 1e6;
    double prefill =
        RandomLlama.multipliesOfPrompt(PROMPT) * 2.0 / millis(results, "prefill") / 1e6;
    System.out.printf(
        "%nThreads %d, vectors of %d floats, bf16 weights of %.0f MB%n",
        THREADS, VectorLanes.WIDTH, RandomLlama.WEIGHT_BYTES / 1e6);
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
