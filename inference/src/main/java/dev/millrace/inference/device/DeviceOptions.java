package dev.millrace.inference.device;

import java.nio.file.Path;
import java.util.List;
import java.util.function.Consumer;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/**
 * Where and in what formats to run a model. Formats are named as by people: {@code bf16}, {@code
 * fp8}; {@code auto} leaves them to checkpoint and backend.
 *
 * @param backend {@code cpu} or {@code cuda}
 * @param number of the card, from 0; the CPU is 0
 * @param dtype format of the weights
 * @param kvDtype format of keys and values
 * @param threads of the CPU backend, at least 1
 * @param kvBlocks blocks of keys and values; 0: what the backend thinks sensible
 * @param maxTokens most query tokens of a step, for which a card's memory is taken
 * @param maxSequences most sequences of a step, likewise
 * @param libraries folder of NVIDIA's libraries; null: where the system looks
 * @param timings folder where a card's fastest ways to multiply are kept between starts; null: they
 *     are not
 * @param invariant whether an answer's tokens may depend on nothing but its own sequence, to the
 *     bit; the CPU backend does it no other way
 * @param e4m3Prefill whether a card may round queries and the weights of attention to e4m3 where
 *     prompts are computed over keys and values of FP8; it does so where it has kernels for it and
 *     results need not be invariant
 * @param warmUp whether opening returns only when the first step will be as fast as the rest
 * @param cudaGraphs whether a card that is warm is given its decode steps as graphs
 */
public record DeviceOptions(
    String backend,
    int number,
    String dtype,
    String kvDtype,
    int threads,
    int kvBlocks,
    int maxTokens,
    int maxSequences,
    @Nullable Path libraries,
    @Nullable Path timings,
    boolean invariant,
    boolean e4m3Prefill,
    boolean warmUp,
    boolean cudaGraphs) {
  /** Leaves a format to checkpoint and backend. */
  public static final String AUTO = "auto";

  /** e4m3: of weights with what they multiply, or of keys and values. */
  public static final String FP8 = "fp8";

  private static final Pattern NAME = Pattern.compile("(cpu|cuda)(?::([0-9]{1,4}))?");
  private static final int MAX_TOKENS = 2048;
  private static final int MAX_SEQUENCES = 256;

  /**
   * A device with formats as they are, warm, all cores where it is the CPU.
   *
   * @param device {@code cpu}, or {@code cuda:N} for the N-th card; {@code cuda} is the first
   * @throws UnsupportedOperationException if it is neither
   */
  public static DeviceOptions of(String device) {
    Matcher name = NAME.matcher(device);
    if (!name.matches()) {
      throw new UnsupportedOperationException(
          "there is no device '%s': it is cpu, or cuda:N for the N-th GPU".formatted(device));
    }
    int number = name.group(2) == null ? 0 : Integer.parseInt(name.group(2));
    int cores = Runtime.getRuntime().availableProcessors();
    return new DeviceOptions(
        name.group(1),
        number,
        AUTO,
        AUTO,
        cores,
        0,
        MAX_TOKENS,
        MAX_SEQUENCES,
        null,
        null,
        false,
        true,
        true,
        true);
  }

  public DeviceOptions withFormats(String weights, String keysAndValues) {
    return with(
        copy -> {
          copy.dtype = weights;
          copy.kvDtype = keysAndValues;
        });
  }

  public DeviceOptions withKvBlocks(int blocks) {
    return with(copy -> copy.kvBlocks = blocks);
  }

  public DeviceOptions withThreads(int count) {
    return with(copy -> copy.threads = count);
  }

  public DeviceOptions withSteps(int tokens, int sequences) {
    return with(
        copy -> {
          copy.maxTokens = tokens;
          copy.maxSequences = sequences;
        });
  }

  public DeviceOptions withLibraries(@Nullable Path folder) {
    return with(copy -> copy.libraries = folder);
  }

  public DeviceOptions withTimings(@Nullable Path folder) {
    return with(copy -> copy.timings = folder);
  }

  public DeviceOptions withE4m3Prefill(boolean narrow) {
    return with(copy -> copy.e4m3Prefill = narrow);
  }

  public DeviceOptions withInvariant(boolean only) {
    return with(copy -> copy.invariant = only);
  }

  public DeviceOptions withWarmUp(boolean warm) {
    return with(copy -> copy.warmUp = warm);
  }

  public DeviceOptions withCudaGraphs(boolean graphs) {
    return with(copy -> copy.cudaGraphs = graphs);
  }

  private DeviceOptions with(Consumer<Copy> change) {
    Copy copy = new Copy(this);
    change.accept(copy);
    return copy.options();
  }

  /** These options on their way to others. */
  private static final class Copy {
    private final String backend;
    private final int number;
    private String dtype;
    private String kvDtype;
    private int threads;
    private int kvBlocks;
    private int maxTokens;
    private int maxSequences;
    private @Nullable Path libraries;
    private @Nullable Path timings;
    private boolean invariant;
    private boolean e4m3Prefill;
    private boolean warmUp;
    private boolean cudaGraphs;

    Copy(DeviceOptions from) {
      backend = from.backend;
      number = from.number;
      dtype = from.dtype;
      kvDtype = from.kvDtype;
      threads = from.threads;
      kvBlocks = from.kvBlocks;
      maxTokens = from.maxTokens;
      maxSequences = from.maxSequences;
      libraries = from.libraries;
      timings = from.timings;
      invariant = from.invariant;
      e4m3Prefill = from.e4m3Prefill;
      warmUp = from.warmUp;
      cudaGraphs = from.cudaGraphs;
    }

    DeviceOptions options() {
      return new DeviceOptions(
          backend,
          number,
          dtype,
          kvDtype,
          threads,
          kvBlocks,
          maxTokens,
          maxSequences,
          libraries,
          timings,
          invariant,
          e4m3Prefill,
          warmUp,
          cudaGraphs);
    }
  }

  /** Refuses a format that a backend does not have; the message lists those it has. */
  static void oneOf(String backend, String what, String name, String asked, List<String> known) {
    if (!asked.equals(AUTO) && !known.contains(asked)) {
      throw new UnsupportedOperationException(
          "the %s backend has no %s of %s: %s is one of %s, %s"
              .formatted(backend, what, asked, name, AUTO, String.join(", ", known)));
    }
  }
}
