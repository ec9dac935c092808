package dev.millrace.kernels;

import java.util.Objects;

/**
 * Launchers of {@code begin.cu}: what a step begins with. Loaded into the current context by
 * whoever closes it. Launches return before the kernels ran; the stream orders them.
 */
public final class BeginKernels implements AutoCloseable {
  private static final int ANGLE_THREADS = 128;
  private static final int THREADS = 512;
  private static final int VECTOR_BYTES = 16;

  /** Enough to fill any GPU of today; a block takes more than one row of a larger step. */
  private static final int MOST_BLOCKS = 4096;

  private final KernelModule module = KernelModule.load("begin");
  private final KernelModule.Kernel embed = module.overlapping("embed");
  private final KernelModule.Kernel angles = module.overlapping("rope_angles");
  private final KernelModule.Kernel begin = module.overlapping("begin_step");

  /**
   * Rows of an embedding: out[t] = table[token], which is tokens[t], or sampled[tokenFrom[t]] where
   * tokenFrom[t] is not -1.
   *
   * @param tokens int [rows], each a row of the table
   * @param tokenFrom int [rows]
   * @param sampled int, what the step before drew; read only where tokenFrom says so
   * @param table bfloat16 [any][width], contiguous
   * @param out bfloat16 [rows][width]
   */
  public record Embedding(
      long tokens, long tokenFrom, long sampled, long table, long out, int width) {
    private int aligned() {
      return new Rows(table, width).aligned(width) && new Rows(out, width).aligned(width) ? 1 : 0;
    }
  }

  /**
   * Cosines and sines of positions times frequencies, themselves times scale.
   *
   * @param positions int [tokens]
   * @param frequencies double [pairs]
   * @param cos float [tokens][pairs]
   * @param sin likewise
   */
  public record Angles(
      long positions, long frequencies, long cos, long sin, int pairs, double scale) {}

  /**
   * A step's arrays, which come from the host.
   *
   * @param host in pinned memory, a multiple of 16
   * @param device likewise
   * @param bytes a multiple of 16
   */
  public record Tables(long host, long device, long bytes) {
    /** Where the host has an array of {@code length} bytes that is there on the device. */
    private long host(long address, long length) {
      Objects.checkFromIndexSize(address - device, length, bytes);
      return host + address - device;
    }
  }

  /** Embeds tokens. */
  public void embed(Embedding e, int rows, Stream stream) {
    embed.with(e.tokens).with(e.tokenFrom).with(e.sampled).with(e.table).with(e.out);
    embed.with(rows).with(e.width).with(e.aligned());
    embed.launch(Math.min(rows, MOST_BLOCKS), THREADS, stream);
  }

  /** Computes angles. */
  public void angles(Angles a, int tokens, Stream stream) {
    int blocks = Math.ceilDiv(Math.multiplyExact(tokens, a.pairs), ANGLE_THREADS);
    angles.with(a.positions).with(a.frequencies).with(a.cos).with(a.sin);
    angles.with(tokens).with(a.pairs).with(a.scale).launch(blocks, ANGLE_THREADS, stream);
  }

  /**
   * Brings a step's arrays to the device, embeds its tokens and computes its angles, which all name
   * arrays among them by where they will be on the device. The host may change its own once this is
   * done.
   */
  public void begin(Tables t, Embedding e, Angles a, int rows, Stream stream) {
    long ints = (long) rows * Integer.BYTES;
    long tokens = t.host(e.tokens, ints);
    long tokenFrom = t.host(e.tokenFrom, ints);
    long positions = t.host(a.positions, ints);
    begin.with(t.host).with(t.device).with(Math.toIntExact(t.bytes / VECTOR_BYTES));
    begin.with(tokens).with(tokenFrom).with(positions);
    begin.with(e.sampled).with(e.table).with(e.out);
    begin.with(e.width).with(e.aligned()).with(a.frequencies).with(a.cos).with(a.sin);
    begin.with(a.pairs).with(a.scale).launch(rows, THREADS, stream);
  }

  @Override
  public void close() {
    module.close();
  }
}
