package dev.millrace.kernels;

import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.StructLayout;
import java.lang.foreign.ValueLayout;
import org.jspecify.annotations.Nullable;

/**
 * The launcher of {@code sampling.cu}. Loaded into the current context by whoever closes it.
 * Launches return before the kernels ran; the stream orders them.
 */
public final class SamplingKernels implements AutoCloseable {
  /** Most of the likeliest tokens whose log-probabilities a row may ask for. */
  public static final int MOST_LOGPROBS = 20;

  /** What a row without a token says. */
  public static final int FAILED = -1;

  private static final int THREADS = 1024;

  /** Of a row, a power of two. */
  private static final int MOST_BLOCKS = 8;

  private static final StructLayout DRAW =
      MemoryLayout.structLayout(
          ValueLayout.JAVA_LONG.withName("stream"),
          ValueLayout.JAVA_DOUBLE.withName("temperature"),
          ValueLayout.JAVA_DOUBLE.withName("floor"),
          ValueLayout.JAVA_DOUBLE.withName("topP"),
          ValueLayout.JAVA_INT.withName("topK"),
          ValueLayout.JAVA_INT.withName("logprobs"),
          ValueLayout.JAVA_FLOAT.withName("repetition"),
          ValueLayout.JAVA_FLOAT.withName("presence"),
          ValueLayout.JAVA_FLOAT.withName("frequency"),
          ValueLayout.JAVA_INT.withName("firstSeen"),
          ValueLayout.JAVA_INT.withName("seen"),
          ValueLayout.JAVA_INT.withName("pending"),
          ValueLayout.JAVA_INT.withName("firstMasked"),
          ValueLayout.JAVA_INT.withName("masked"));

  /** Bytes of a {@link Draw}. */
  public static final long DRAW_BYTES = DRAW.byteSize();

  /** Bytes of a token seen: its id and its count, both int. */
  public static final long SEEN_BYTES = 2 * Integer.BYTES;

  private static final StructLayout LOGPROBS =
      MemoryLayout.structLayout(
          ValueLayout.JAVA_FLOAT.withName("chosen"),
          ValueLayout.JAVA_INT.withName("count"),
          MemoryLayout.sequenceLayout(MOST_LOGPROBS, ValueLayout.JAVA_INT).withName("tokens"),
          MemoryLayout.sequenceLayout(MOST_LOGPROBS, ValueLayout.JAVA_FLOAT).withName("values"));

  /** Bytes of a row's log-probabilities. */
  public static final long LOGPROBS_BYTES = LOGPROBS.byteSize();

  private final KernelModule module = KernelModule.load("sampling");
  private final KernelModule.Kernel sample = module.overlapping("sample");
  // Null where the GPU has no clusters.
  private final KernelModule.@Nullable Kernel byClusters =
      module.findClusters("sample_by_clusters");
  private final int multiprocessors;

  /**
   * Loads the kernels.
   *
   * @param multiprocessors of the GPU: of few rows each is shared by several of them
   */
  public SamplingKernels(int multiprocessors) {
    this.multiprocessors = multiprocessors;
  }

  /**
   * How a row's token is drawn.
   *
   * @param stream of the position's noise
   * @param temperature 0: the likeliest
   * @param floor logarithm of min-p
   * @param topP 1: off
   * @param topK 0: off
   * @param logprobs of how many likely tokens; -1: of none, nor of the one drawn
   * @param firstSeen index of the first of {@code seen} tokens that penalties are for
   * @param pending row of the step before whose token has been output on top of these, or -1
   * @param firstMasked index of the first of {@code masked} tokens that may not be drawn
   */
  public record Draw(
      long stream,
      double temperature,
      double floor,
      double topP,
      int topK,
      int logprobs,
      float repetition,
      float presence,
      float frequency,
      int firstSeen,
      int seen,
      int pending,
      int firstMasked,
      int masked) {

    // Looked up once: a step writes one for each of its sequences.
    private static final long STREAM_AT = at("stream");
    private static final long TEMPERATURE_AT = at("temperature");
    private static final long FLOOR_AT = at("floor");
    private static final long TOP_P_AT = at("topP");
    private static final long TOP_K_AT = at("topK");
    private static final long LOGPROBS_AT = at("logprobs");
    private static final long REPETITION_AT = at("repetition");
    private static final long PRESENCE_AT = at("presence");
    private static final long FREQUENCY_AT = at("frequency");
    private static final long FIRST_SEEN_AT = at("firstSeen");
    private static final long SEEN_AT = at("seen");
    private static final long PENDING_AT = at("pending");
    private static final long FIRST_MASKED_AT = at("firstMasked");
    private static final long MASKED_AT = at("masked");

    /** Writes it where the device takes it from, {@link #DRAW_BYTES} bytes. */
    public void write(MemorySegment to, long offset) {
      to.set(ValueLayout.JAVA_LONG_UNALIGNED, offset + STREAM_AT, stream);
      to.set(ValueLayout.JAVA_DOUBLE_UNALIGNED, offset + TEMPERATURE_AT, temperature);
      to.set(ValueLayout.JAVA_DOUBLE_UNALIGNED, offset + FLOOR_AT, floor);
      to.set(ValueLayout.JAVA_DOUBLE_UNALIGNED, offset + TOP_P_AT, topP);
      to.set(ValueLayout.JAVA_INT_UNALIGNED, offset + TOP_K_AT, topK);
      to.set(ValueLayout.JAVA_INT_UNALIGNED, offset + LOGPROBS_AT, logprobs);
      to.set(ValueLayout.JAVA_FLOAT_UNALIGNED, offset + REPETITION_AT, repetition);
      to.set(ValueLayout.JAVA_FLOAT_UNALIGNED, offset + PRESENCE_AT, presence);
      to.set(ValueLayout.JAVA_FLOAT_UNALIGNED, offset + FREQUENCY_AT, frequency);
      to.set(ValueLayout.JAVA_INT_UNALIGNED, offset + FIRST_SEEN_AT, firstSeen);
      to.set(ValueLayout.JAVA_INT_UNALIGNED, offset + SEEN_AT, seen);
      to.set(ValueLayout.JAVA_INT_UNALIGNED, offset + PENDING_AT, pending);
      to.set(ValueLayout.JAVA_INT_UNALIGNED, offset + FIRST_MASKED_AT, firstMasked);
      to.set(ValueLayout.JAVA_INT_UNALIGNED, offset + MASKED_AT, masked);
    }

    /** Changes what was written: its {@link #stream}. */
    public static void writeStream(MemorySegment to, long offset, long stream) {
      to.set(ValueLayout.JAVA_LONG_UNALIGNED, offset + STREAM_AT, stream);
    }

    private static long at(String field) {
      return DRAW.byteOffset(MemoryLayout.PathElement.groupElement(field));
    }
  }

  /** Log-probabilities of a row: of the token drawn, and of the likeliest ones, best first. */
  public record Logprobs(float chosen, int[] tokens, float[] values) {
    /** Reads what the device left. */
    public static Logprobs read(MemorySegment from, long offset) {
      int count = from.get(ValueLayout.JAVA_INT_UNALIGNED, offset + 4);
      int[] tokens = new int[count];
      float[] values = new float[count];
      for (int i = 0; i < count; i++) {
        tokens[i] = from.get(ValueLayout.JAVA_INT_UNALIGNED, offset + 8 + 4L * i);
        values[i] =
            from.get(ValueLayout.JAVA_FLOAT_UNALIGNED, offset + 8 + 4L * MOST_LOGPROBS + 4L * i);
      }
      return new Logprobs(from.get(ValueLayout.JAVA_FLOAT_UNALIGNED, offset), tokens, values);
    }
  }

  /**
   * Draws a token for each row.
   *
   * @param logits float [rows][vocab]; penalties and masks change them
   * @param draws [rows] {@link Draw}
   * @param seen pairs of int (token, count), by which the draws index; changed
   * @param masked int tokens, by which the draws index
   * @param previous int, what the step before drew; read only where a draw has one pending
   * @param tokens int [rows], {@link #FAILED} where the logits are no numbers
   * @param hostTokens the same for the host, in pinned memory
   * @param logprobs [rows] where the draws ask for some, else 0
   */
  public void sample(
      long logits,
      long draws,
      long seen,
      long masked,
      long previous,
      long tokens,
      long hostTokens,
      long logprobs,
      int rows,
      int vocab,
      Stream stream) {
    int blocks = blocks(rows, multiprocessors);
    KernelModule.Kernel kernel =
        byClusters == null || blocks == 1 ? sample : byClusters.inClustersOf(blocks);
    kernel.with(logits).with(draws).with(seen).with(masked).with(previous);
    kernel.with(tokens).with(hostTokens).with(logprobs).with(vocab);
    kernel.launch(kernel == sample ? rows : rows * blocks, THREADS, stream);
  }

  /**
   * Blocks of each row, so that all run at once: a cluster's are neighbours, so that not each
   * multiprocessor finds a place in one.
   */
  static int blocks(int rows, int multiprocessors) {
    int blocks = MOST_BLOCKS;
    while (blocks > 1 && rows * blocks > multiprocessors * 3 / 4) {
      blocks /= 2;
    }
    return blocks;
  }

  @Override
  public void close() {
    module.close();
  }
}
