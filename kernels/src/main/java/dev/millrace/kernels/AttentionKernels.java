package dev.millrace.kernels;

import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Launchers of {@code rope.cu}, {@code attention.cu}, {@code attention_fp8.cu}, {@code
 * attention_sm90.cu}, {@code attention_e4m3_sm90.cu} and {@code decode_sm90.cu}. Loaded into the
 * current context by whoever closes it. Launches return before the kernels ran; the stream orders
 * them.
 */
public final class AttentionKernels implements AutoCloseable {
  /** Numbers of a head that there are kernels for. */
  public static final List<Integer> HEAD_DIMS = List.of(16, 32, 48, 64, 96, 128);

  /** Tokens of a block of the cache. */
  public static final int BLOCK_TOKENS = 16;

  /** Rows of a prefill tile: query tokens times the heads that share a KV head. */
  public static final int TILE_ROWS = 128;

  /** Query heads of one block of a decode, of few heads that share a KV head and of many. */
  static final int FEW_HEADS = 8;

  public static final int MANY_HEADS = 16;

  private static final int WARP = 32;
  private static final int PREFILL_WARPS = 8;
  private static final int PREFILL_TOKENS = 64;
  static final int DECODE_WARPS = 4;
  private static final int MOST_STAGES = 3;
  private static final int LEAST_STAGES = 2;

  /** Blocks of a decode that a multiprocessor has registers for. */
  public static final int MOST_DECODE_BLOCKS = 4;

  /** Of shared memory that the chip keeps for itself for each block. */
  private static final int RESERVED_BYTES = 1024;

  /** Of shared memory that is left to small kernels, which are set up beside a decode. */
  private static final int SMALL_BYTES = 8 << 10;

  private static final int PART_BYTES = 16;

  private static final int EIGHT = 8;
  private static final int WIDEN_THREADS = 256;
  private static final int STORE_THREADS = 256;

  private final KernelModule rope = KernelModule.load("rope");
  private final KernelModule attention = KernelModule.load("attention");
  private final KernelModule attentionFp8 = KernelModule.load("attention_fp8");
  private final HopperPrefill hopper = new HopperPrefill();
  private final E4m3Prefill e4m3;
  private final HopperDecode hopperDecode = new HopperDecode();
  private final KernelModule.Kernel ropeStore = rope.overlapping("rope_store");
  private final KernelModule.Kernel ropeStoreFp8 = rope.overlapping("rope_store_fp8");
  private final KernelModule.Kernel widen = attentionFp8.overlapping("widen_blocks");
  private final KernelModule.Kernel merge = attention.overlapping("merge");
  private final Map<Integer, KernelModule.Kernel> prefill = new HashMap<>();
  private final Map<Integer, KernelModule.Kernel> decode = new HashMap<>();
  private final Map<Integer, KernelModule.Kernel> decodeMany = new HashMap<>();
  private final Map<Integer, KernelModule.Kernel> prefillFp8 = new HashMap<>();
  private final Map<Integer, KernelModule.Kernel> decodeFp8 = new HashMap<>();
  private final Map<Integer, KernelModule.Kernel> decodeFp8Many = new HashMap<>();

  /**
   * e4m3 keys and values: what they are multiplied by when they are read.
   *
   * @param keys above 0
   * @param values above 0
   */
  public record Scales(float keys, float values) {}

  /**
   * A layer's keys and values, each [block][kvHead][16][headDim].
   *
   * @param heads query heads, a multiple of kvHeads and at most {@link #TILE_ROWS} times as many
   * @param fp8 of e4m3; null: they are bfloat16
   */
  public record Layer(
      long keys, long values, int heads, int kvHeads, int headDim, @Nullable Scales fp8) {
    public Layer {
      if (!HEAD_DIMS.contains(headDim)) {
        throw new IllegalArgumentException(
            "heads of " + headDim + " numbers: there are kernels for " + HEAD_DIMS);
      }
      if (heads % kvHeads != 0 || heads / kvHeads > TILE_ROWS) {
        throw new IllegalArgumentException(
            heads + " query heads cannot share " + kvHeads + " KV heads here");
      }
    }

    int group() {
      return heads / kvHeads;
    }

    /** Of products of queries and keys, to base 2. */
    float scale() {
      float keys = fp8 == null ? 1 : fp8.keys;
      return (float) (keys / (Math.log(2) * Math.sqrt(headDim)));
    }

    int bytes() {
      return fp8 == null ? Short.BYTES : Byte.BYTES;
    }
  }

  /**
   * The sequences of a step, each int: queryStart [sequences + 1], contextLength [sequences],
   * blockTable [sequences][maxBlocks].
   *
   * <p>A sequence goes by its index s in them, and nothing but queryStart[s], queryStart[s + 1],
   * contextLength[s] and the numbers from blockTable[s · maxBlocks] on is read of it. So the three
   * may also share one array of sequences of different lengths, in which s is where a sequence
   * begins and maxBlocks is 1: graphs have them so.
   */
  public record Sequences(long queryStart, long contextLength, long blockTable, int maxBlocks) {}

  /**
   * Tiles of query tokens, each int [count]: of which sequence, by its index in {@link Sequences},
   * and its first query token's index within the sequence's query. A tile has {@link #TILE_ROWS} /
   * group tokens or what is left. They begin in this order, so what takes longest should come
   * first. Where the index is -1 there is no tile.
   */
  public record Tiles(long sequence, long token, int count) {}

  /**
   * Blocks of an FP8 cache as halves, for tiles that read those instead.
   *
   * @param keys room for the keys of count blocks, twice as large as in the cache
   * @param values likewise
   * @param blocks int [count]: which blocks of the cache; a sequence's follow one another
   * @param first int [sequences]: the index there of a sequence's first, if it has tiles here
   */
  public record Widened(long keys, long values, long blocks, int count, long first, Tiles tiles)
      implements Prepared {}

  /**
   * Values of an FP8 cache, transposed, for tiles that are multiplied in e4m3.
   *
   * @param values room for {@link #tileBytes} times KV heads for each of count tiles
   * @param begun room for an int
   * @param sequence int [count]: of which sequence a tile of values is, by its index in {@link
   *     Sequences}; a sequence's follow one another
   * @param tile int [count]: the index of the tile in the sequence
   * @param first int [sequences]: the index there of a sequence's first, if it has tiles here
   */
  public record Transposed(
      long values, long begun, long sequence, long tile, int count, long first, Tiles tiles)
      implements Prepared {
    /** Positions of a tile of values. */
    public static final int TOKENS = E4m3Prefill.TILE_TOKENS;

    /** Bytes of a tile of values of one KV head of 128 numbers. */
    public static int tileBytes() {
      return E4m3Prefill.TILE_BYTES;
    }
  }

  /** What is made of an FP8 cache once a layer, and the tiles of query tokens that read it. */
  public sealed interface Prepared {}

  /**
   * Stretches of context of sequences with one query token, each int [count]: of which sequence, by
   * its index in {@link Sequences}, the positions [from, to). All of a sequence's follow one
   * another; from is a multiple of 16. Where from is to there is no item.
   */
  public record Items(long sequence, long from, long to, int count) {}

  /**
   * Sequences of more than one item, each int [count]: which, by its index in {@link Sequences},
   * its first item, its items; none where those are 0.
   */
  public record Merges(long sequence, long first, long items, int count) {}

  /** Where the items of one call leave their results. */
  public record Partials(long values, long weights) {
    /** Bytes of the values of so many items. */
    public static long valueBytes(int items, int heads, int headDim) {
      return (long) items * heads * headDim * Float.BYTES;
    }

    /** Bytes of the weights of so many items. */
    public static long weightBytes(int items, int heads) {
      return (long) items * heads * Float.BYTES;
    }
  }

  private final int multiprocessors;
  private final int sharedBytes;

  /**
   * Loads the kernels.
   *
   * @param sharedBytes of shared memory that a block may have on the device
   * @param multiprocessors of the device
   * @throws CudaException if this build has none, or the driver refuses them
   */
  public AttentionKernels(int sharedBytes, int multiprocessors) {
    this.multiprocessors = multiprocessors;
    this.sharedBytes = sharedBytes;
    this.e4m3 = new E4m3Prefill(multiprocessors);
    for (int headDim : HEAD_DIMS) {
      prefill.put(headDim, attention.kernel("prefill_" + headDim));
      decode.put(headDim, attention.overlapping("decode_" + headDim));
      decodeMany.put(headDim, attention.overlapping("decode_" + headDim + "_16"));
      prefillFp8.put(headDim, attentionFp8.kernel("prefill_fp8_" + headDim));
      decodeFp8.put(headDim, attentionFp8.overlapping("decode_fp8_" + headDim));
      decodeFp8Many.put(headDim, attentionFp8.overlapping("decode_fp8_" + headDim + "_16"));
    }
  }

  /**
   * Turns queries in place, and stores turned keys and values in the tokens' slots.
   *
   * @param q [tokens][heads][headDim]
   * @param k [tokens][kvHeads][headDim]
   * @param v as k, with the same stride
   * @param factors float [tokens], by which rows of all three are multiplied first; 0: by none
   * @param slots int [tokens]; -1: there is no such token, nothing is done
   */
  public void ropeAndStore(
      Rows q,
      Rows k,
      long v,
      long factors,
      long cos,
      long sin,
      long slots,
      Layer layer,
      int tokens,
      Stream stream) {
    Scales fp8 = layer.fp8;
    KernelModule.Kernel kernel = fp8 == null ? ropeStore : ropeStoreFp8;
    kernel.with(q.address()).with(k.address()).with(v).with(factors).with(cos).with(sin);
    kernel.with(slots);
    kernel.with(layer.keys).with(layer.values).with(layer.heads).with(layer.kvHeads);
    kernel.with(layer.headDim).with(q.stride()).with(k.stride());
    if (fp8 != null) {
      kernel.with(1 / fp8.keys).with(1 / fp8.values);
    }
    kernel.launch(tokens, STORE_THREADS, stream);
  }

  /** Attention of sequences with several query tokens. */
  public void prefill(
      Rows q, Rows out, Layer layer, Sequences sequences, Tiles tiles, Stream stream) {
    if (hopper.launch(q, out, layer, sequences, tiles, stream)) {
      return;
    }
    KernelModule.Kernel kernel = of(layer.fp8 == null ? prefill : prefillFp8, layer);
    kernel.with(q.address()).with(layer.keys).with(layer.values).with(out.address());
    sequences(kernel, sequences).with(tiles.sequence).with(tiles.token);
    shape(kernel, sequences, layer, q, out);
    kernel.launch(
        tiles.count,
        layer.kvHeads,
        PREFILL_WARPS * WARP,
        prefillShared(layer.headDim, layer.bytes()),
        stream);
  }

  /** Whether this card has kernels that read widened FP8 keys and values of such heads. */
  public boolean widens(int headDim) {
    return hopper.widens(headDim);
  }

  /** Whether this card has kernels that attend in e4m3 to an FP8 cache of such heads. */
  public boolean attendsInE4m3(int headDim) {
    return e4m3.takes(headDim);
  }

  /**
   * As {@link #prefill}, over an FP8 cache of which something is made first. Of widened blocks it
   * is the same to the bit; only where {@link #widens}. Of transposed values it is attention whose
   * queries and weights are rounded to e4m3; only where {@link #attendsInE4m3}.
   */
  public void prefill(
      Rows q, Rows out, Layer layer, Sequences sequences, Prepared prepared, Stream stream) {
    switch (prepared) {
      case Widened wide -> {
        widen.with(layer.keys).with(layer.values).with(wide.keys).with(wide.values);
        widen.with(wide.blocks).with(layer.kvHeads * BLOCK_TOKENS * layer.headDim / EIGHT);
        widen.launch(wide.count, 2, WIDEN_THREADS, 0, stream);
        hopper.launchWidened(q, out, layer, sequences, wide, stream);
      }
      case Transposed values -> e4m3.launch(q, out, layer, sequences, values, stream);
    }
  }

  /**
   * Attention of sequences with one query token; those of several items leave them to merge.
   *
   * <p>It asks for keys and values ahead of the kernel before it: those of all blocks of a sequence
   * but that of its last position, and the step's arrays, must have been written before something
   * that waits for all before it, such as a copy.
   */
  public void decode(
      Rows q,
      Rows out,
      Layer layer,
      Sequences sequences,
      Items items,
      Partials partials,
      Stream stream) {
    boolean few = layer.group() <= FEW_HEADS;
    int stages = decodeStages(layer.headDim, layer.bytes(), sharedBytes);
    KernelModule.Kernel bulk = hopperDecode.of(layer);
    KernelModule.Kernel kernel =
        bulk != null
            ? bulk
            : layer.fp8 == null
                ? of(few ? decode : decodeMany, layer)
                : of(few ? decodeFp8 : decodeFp8Many, layer);
    kernel.with(q.address()).with(layer.keys).with(layer.values).with(out.address());
    kernel.with(partials.values).with(partials.weights);
    sequences(kernel, sequences).with(items.sequence).with(items.from).with(items.to);
    shape(kernel, sequences, layer, q, out);
    if (bulk == null) {
      kernel.with(stages);
    }
    int parts = layer.kvHeads * decodeParts(layer.group());
    int least =
        bulk != null ? HopperDecode.SHARED : decodeShared(layer.headDim, layer.bytes(), stages);
    int shared =
        spread(least, Math.multiplyExact(items.count, parts), multiprocessors, sharedBytes);
    kernel.launch(items.count, parts, DECODE_WARPS * WARP, shared, stream);
  }

  /** Puts the items of sequences together. */
  public void merge(
      Rows out, Layer layer, Sequences sequences, Merges merges, Partials partials, Stream stream) {
    merge.with(partials.values).with(partials.weights).with(out.address());
    merge.with(sequences.queryStart).with(merges.sequence).with(merges.first).with(merges.items);
    merge.with(layer.heads).with(layer.headDim).with(out.stride());
    merge.launch(merges.count, layer.heads, layer.headDim, 0, stream);
  }

  static KernelModule.Kernel sequences(KernelModule.Kernel kernel, Sequences s) {
    return kernel.with(s.queryStart).with(s.contextLength).with(s.blockTable);
  }

  static void shape(KernelModule.Kernel kernel, Sequences s, Layer l, Rows q, Rows out) {
    kernel.with(s.maxBlocks).with(l.kvHeads).with(l.group()).with(q.stride()).with(out.stride());
    kernel.with(l.scale());
    if (l.fp8 != null) {
      kernel.with(l.fp8.values);
    }
  }

  private static KernelModule.Kernel of(Map<Integer, KernelModule.Kernel> kernels, Layer layer) {
    KernelModule.Kernel kernel = kernels.get(layer.headDim);
    if (kernel == null) {
      throw new IllegalArgumentException("no kernel for heads of " + layer.headDim);
    }
    return kernel;
  }

  /** Blocks of a decode that share a KV head's query heads. */
  static int decodeParts(int group) {
    return Math.ceilDiv(group, MANY_HEADS);
  }

  /** Bytes of a row of shared memory: an odd number of parts, so that eight meet no bank twice. */
  private static int rowBytes(int headDim, int bytes) {
    return (headDim * bytes / PART_BYTES | 1) * PART_BYTES;
  }

  /**
   * Bytes of shared memory: two tiles of keys, two of values; of one-byte numbers also one each of
   * what they are widened to.
   */
  static int prefillShared(int headDim, int bytes) {
    int tiles = 2 * 2 * PREFILL_TOKENS * rowBytes(headDim, bytes);
    return bytes == 1 ? tiles + 2 * PREFILL_TOKENS * rowBytes(headDim, Short.BYTES) : tiles;
  }

  /** Bytes of shared memory: a pipeline of keys and values for each warp. */
  static int decodeShared(int headDim, int bytes, int stages) {
    return DECODE_WARPS * stages * 2 * BLOCK_TOKENS * rowBytes(headDim, bytes);
  }

  /**
   * As many as leave room for two blocks on a multiprocessor, which has a bit more than a block.
   */
  static int decodeStages(int headDim, int bytes, int sharedBytes) {
    return blocks(headDim, bytes, MOST_STAGES, sharedBytes) >= 2 ? MOST_STAGES : LEAST_STAGES;
  }

  /**
   * Bytes of shared memory that no multiprocessor has for more than its share of blocks. A decode
   * is set up while the kernels before it still run, and would else fill those multiprocessors that
   * are free first.
   *
   * @param least that a block needs
   * @param sharedBytes that a block may have
   */
  static int spread(int least, int blocks, int multiprocessors, int sharedBytes) {
    int each = Math.ceilDiv(blocks, multiprocessors);
    int share = (sharedBytes + RESERVED_BYTES - SMALL_BYTES) / each - RESERVED_BYTES;
    return Math.max(least, share);
  }

  private static int blocks(int headDim, int bytes, int stages, int sharedBytes) {
    return (sharedBytes + RESERVED_BYTES) / (decodeShared(headDim, bytes, stages) + RESERVED_BYTES);
  }

  /**
   * Blocks of a decode that run at once on a multiprocessor.
   *
   * @param bytes of a number of keys and values
   */
  public int decodeBlocks(int headDim, int bytes) {
    int stages = decodeStages(headDim, bytes, sharedBytes);
    return Math.clamp(blocks(headDim, bytes, stages, sharedBytes), 1, MOST_DECODE_BLOCKS);
  }

  @Override
  public void close() {
    rope.close();
    attention.close();
    attentionFp8.close();
    hopper.close();
    e4m3.close();
    hopperDecode.close();
  }
}
