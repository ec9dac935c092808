package dev.millrace.inference.device;

import java.nio.file.Path;
import java.util.List;
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
 *     prompts are computed over keys and values of FP8
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
        false,
        true,
        true);
  }

  public DeviceOptions withFormats(String weights, String keysAndValues) {
    return new DeviceOptions(
        backend,
        number,
        weights,
        keysAndValues,
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

  public DeviceOptions withKvBlocks(int blocks) {
    return new DeviceOptions(
        backend,
        number,
        dtype,
        kvDtype,
        threads,
        blocks,
        maxTokens,
        maxSequences,
        libraries,
        timings,
        invariant,
        e4m3Prefill,
        warmUp,
        cudaGraphs);
  }

  public DeviceOptions withThreads(int count) {
    return new DeviceOptions(
        backend,
        number,
        dtype,
        kvDtype,
        count,
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

  public DeviceOptions withSteps(int tokens, int sequences) {
    return new DeviceOptions(
        backend,
        number,
        dtype,
        kvDtype,
        threads,
        kvBlocks,
        tokens,
        sequences,
        libraries,
        timings,
        invariant,
        e4m3Prefill,
        warmUp,
        cudaGraphs);
  }

  public DeviceOptions withLibraries(@Nullable Path folder) {
    return new DeviceOptions(
        backend,
        number,
        dtype,
        kvDtype,
        threads,
        kvBlocks,
        maxTokens,
        maxSequences,
        folder,
        timings,
        invariant,
        e4m3Prefill,
        warmUp,
        cudaGraphs);
  }

  public DeviceOptions withTimings(@Nullable Path folder) {
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
        folder,
        invariant,
        e4m3Prefill,
        warmUp,
        cudaGraphs);
  }

  public DeviceOptions withE4m3Prefill(boolean narrow) {
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
        narrow,
        warmUp,
        cudaGraphs);
  }

  public DeviceOptions withInvariant(boolean only) {
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
        only,
        e4m3Prefill,
        warmUp,
        cudaGraphs);
  }

  public DeviceOptions withWarmUp(boolean warm) {
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
        warm,
        cudaGraphs);
  }

  public DeviceOptions withCudaGraphs(boolean graphs) {
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
        graphs);
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
