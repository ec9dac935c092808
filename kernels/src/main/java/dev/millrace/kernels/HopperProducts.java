package dev.millrace.kernels;

import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Launchers of {@code products_sm90.cu}: products of few and of some more rows on Hopper, for which
 * weights come at nearly the speed of memory. Other chips have no such kernels: there {@link
 * #takes} says no. Loaded into the current context by whoever closes it. Launches return before the
 * kernels ran; the stream orders them, but weights may be read while kernels before still run: who
 * makes weights by a kernel waits for it before the first product. One thread at a time.
 *
 * <p>A row's result depends on that row and the weight alone, whatever the number of rows.
 */
public final class HopperProducts implements AutoCloseable {
  /** Most rows of e4m3. */
  public static final int MOST_ROWS = 64;

  /** Most rows of bfloat16, of which more were not measured. */
  public static final int MOST_BF16_ROWS = 16;

  private static final int ROWS_STEP = 16;
  private static final int THREADS = 2 * 128 + 2 * 32;
  private static final int ALIGNMENT = 16;
  private static final int TILE_STEP = 16;
  private static final int LEAST_TILE = 32;
  private static final int MOST_TILE = 128;
  private static final int LINE_BYTES = 128;
  private static final int STRETCH_LINES = 2;
  private static final int MOST_STAGES = 12;

  /** Shared memory of a block that has a multiprocessor to itself, and of one of two. */
  private static final int ALONE_BYTES = 222 << 10;

  private static final int SHARING_BYTES = 110 << 10;

  /** Bytes of weights on their way to a block, before and while it multiplies: as measured. */
  private static final int EARLY_BYTES = 48 << 10;

  private static final int MOST_BYTES = 96 << 10;

  private final KernelModule module = KernelModule.load("products_sm90");
  private final List<KernelModule.Kernel> bf16 = kernels("bf16", MOST_BF16_ROWS);
  private final List<KernelModule.Kernel> fp8 = kernels("e4m3", MOST_ROWS);
  private final @Nullable TensorMaps maps;
  private final int multiprocessors;

  /**
   * How a product's outputs are shared out.
   *
   * @param tile outputs of a block
   * @param blocks that share a tile, 1 or 2, each half of the columns
   */
  record Tiling(int tile, int blocks) {
    /**
     * By what the busiest multiprocessor has to read: weights, and x again for each tile. It does
     * not depend on the number of rows.
     */
    static Tiling of(int outputs, int multiprocessors) {
      Tiling best = new Tiling(LEAST_TILE, 1);
      double least = Double.MAX_VALUE;
      for (int blocks = 1; blocks <= 2; blocks++) {
        for (int tile = LEAST_TILE; tile <= MOST_TILE; tile += TILE_STEP) {
          int each = Math.ceilDiv(Math.ceilDiv(outputs, tile) * blocks, multiprocessors);
          // A pair's queues take all of the memory of two multiprocessors: it has them once.
          double read = (double) each * tile / blocks * (1 + 8.0 / tile);
          if ((blocks == 1 || each == 1) && read < least) {
            least = read;
            best = new Tiling(tile, blocks);
          }
        }
      }
      return best;
    }

    /**
     * Bytes beside the queue: half of a tile's sums, or what is read behind the last weights as if
     * the tile were the largest.
     *
     * @param rows that the kernel has
     */
    private int beside(int rows) {
      int sums = blocks == 1 ? 0 : MOST_TILE * rows / 2 * Float.BYTES;
      return Math.max(sums, (MOST_TILE - tile) * LINE_BYTES);
    }

    private int stageBytes(int rows) {
      return STRETCH_LINES * (tile + rows) * LINE_BYTES;
    }

    int stages(int rows) {
      int room = blocks == 1 ? SHARING_BYTES : ALONE_BYTES;
      return Math.min(MOST_STAGES, (room - beside(rows)) / stageBytes(rows));
    }

    /** Bytes of shared memory, beside what the kernel has of its own. */
    int sharedBytes(int rows) {
      return stages(rows) * stageBytes(rows) + beside(rows);
    }

    /** Stages whose weights are on their way at most before x is there. */
    int early(int rows) {
      return stagesOf(EARLY_BYTES, 1, rows);
    }

    /** And later. The kernel would wait for ever for one that is more than a queue behind. */
    int most(int rows) {
      return stagesOf(MOST_BYTES, 2, rows);
    }

    private int stagesOf(int bytes, int least, int rows) {
      return Math.clamp(bytes / (STRETCH_LINES * tile * LINE_BYTES), least, stages(rows));
    }
  }

  /**
   * Loads the kernels, where the GPU has them.
   *
   * @param multiprocessors of the GPU
   */
  public HopperProducts(int multiprocessors) {
    this.multiprocessors = multiprocessors;
    this.maps = fp8.isEmpty() ? null : new TensorMaps(Driver.natives());
  }

  /** By rows, in steps; none where the GPU has none. */
  private List<KernelModule.Kernel> kernels(String type, int most) {
    List<KernelModule.Kernel> kernels = new ArrayList<>();
    for (int rows = ROWS_STEP; rows <= most; rows += ROWS_STEP) {
      KernelModule.Kernel kernel = module.findClusters("products_%s_%d".formatted(type, rows));
      if (kernel != null) {
        kernels.add(kernel);
      }
    }
    return kernels;
  }

  /**
   * Whether there is a kernel for such a product.
   *
   * @param bytes of a number
   */
  public boolean takes(Rows x, int rows, long weight, int inputs, int bytes) {
    return maps != null
        && rows > 0
        && rows <= (bytes == 1 ? MOST_ROWS : MOST_BF16_ROWS)
        && (x.address() | weight | (long) x.stride() * bytes | (long) inputs * bytes) % ALIGNMENT
            == 0;
  }

  /**
   * out = x · weightᵀ, summed in float.
   *
   * @param x bfloat16 [rows][inputs]; as {@link #takes} wants it, here and below
   * @param weight bfloat16 [outputs][inputs], contiguous
   * @param out [rows][outputs], bfloat16 or float as {@code output} says; its stride counts such
   */
  public void multiply(
      Rows x,
      int rows,
      long weight,
      int outputs,
      int inputs,
      Rows out,
      CublasLt.Output output,
      Stream stream) {
    launch(bf16, Short.BYTES, x, rows, weight, outputs, inputs, out, output, 1, 0, stream);
  }

  /**
   * out = factor · scales · x · weightᵀ of e4m3. What the matrix units sum in their fast way, 256
   * columns, is added up in float.
   *
   * @param x e4m3 [rows][inputs]; its stride counts such
   * @param weight e4m3 [outputs][inputs], contiguous
   * @param scales float [rows] on the device; 0: each is 1
   */
  public void multiplyFp8(
      Rows x,
      int rows,
      long weight,
      int outputs,
      int inputs,
      Rows out,
      CublasLt.Output output,
      float factor,
      long scales,
      Stream stream) {
    launch(fp8, Byte.BYTES, x, rows, weight, outputs, inputs, out, output, factor, scales, stream);
  }

  private void launch(
      List<KernelModule.Kernel> kernels,
      int bytes,
      Rows x,
      int rows,
      long weight,
      int outputs,
      int inputs,
      Rows out,
      CublasLt.Output output,
      float factor,
      long scales,
      Stream stream) {
    if (maps == null) {
      throw new IllegalArgumentException("this card has no kernels for products of some rows");
    }
    Tiling tiling = Tiling.of(outputs, multiprocessors);
    int step = Math.ceilDiv(rows, ROWS_STEP);
    int most = step * ROWS_STEP;
    MemorySegment w = maps.lines(new Rows(weight, inputs), outputs, inputs, bytes, tiling.tile);
    MemorySegment in = maps.lines(x, rows, inputs, bytes, most);
    KernelModule.Kernel kernel = kernels.get(step - 1).inClustersOf(tiling.blocks);
    kernel.with(w).with(in).with(out.address()).with(scales).with(factor);
    kernel.with(outputs).with(Math.ceilDiv(inputs * bytes, LINE_BYTES)).with(rows);
    kernel.with(out.stride()).with(output == CublasLt.Output.F32 ? 1 : 0).with(tiling.tile);
    kernel.with(tiling.stages(most)).with(tiling.early(most)).with(tiling.most(most));
    int blocks = Math.ceilDiv(outputs, tiling.tile) * tiling.blocks;
    kernel.launch(blocks, 1, THREADS, tiling.sharedBytes(most), stream);
  }

  @Override
  public void close() {
    module.close();
  }
}
