package dev.millrace.inference.model;

import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.backend.KvCache;
import dev.millrace.inference.backend.KvFormat;
import dev.millrace.inference.backend.Step;
import dev.millrace.inference.checkpoint.ModelConfig;
import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.inference.device.DeviceOptions;
import dev.millrace.inference.device.Devices;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.List;
import java.util.Locale;

/**
 * Writes the logits of every position of given sequences, for {@code
 * src/test/python/true_shapes.py} to compare, and says how fast the checkpoints were loaded. The
 * last positions are computed one at a time, those before them in chunks.
 *
 * <pre>TeacherForced DEVICE DTYPE KV-DTYPE FOLDER...</pre>
 *
 * Formats are those of {@link DeviceOptions}, here {@code auto}, {@code bf16} or {@code fp8}. Of
 * each folder's checkpoint and {@code tokens.i32}, little-endian ints, come little-endian floats
 * [tokens][vocabulary] in {@code ours-DTYPE.f32}, or {@code ours-fp8-fp8.f32} where keys and values
 * are FP8. A folder with a {@code config.json} and no weights gets {@link DampedWeights}.
 */
public final class TeacherForced {
  private static final int CHUNK = 201;
  private static final int DECODED = 40;

  private TeacherForced() {}

  /** See the class. */
  public static void main(String[] args) throws IOException {
    DeviceOptions device = DeviceOptions.of(args[0]);
    Precision precision = precision(args[1]);
    KvFormat kv = args[2].equals(DeviceOptions.FP8) ? KvFormat.FP8 : KvFormat.NATIVE;
    try (Backend backend = Devices.backend(device)) {
      for (int i = 3; i < args.length; i++) {
        String suffix = kv == KvFormat.FP8 ? "-" + DeviceOptions.FP8 : "";
        Path out = Path.of(args[i], "ours-" + args[1] + suffix + ".f32");
        run(backend, Path.of(args[i]), precision, kv, out);
      }
    }
  }

  private static Precision precision(String dtype) {
    return switch (dtype) {
      case DeviceOptions.AUTO -> Precision.AS_STORED;
      case DeviceOptions.FP8 -> Precision.FP8;
      default -> Precision.valueOf(dtype.toUpperCase(Locale.ROOT));
    };
  }

  private static void run(Backend backend, Path folder, Precision precision, KvFormat kv, Path out)
      throws IOException {
    int[] tokens = ints(folder.resolve("tokens.i32"));
    long start = System.nanoTime();
    try (Model model = load(folder, precision, backend)) {
      backend.await();
      double seconds = (System.nanoTime() - start) / 1e9;
      KvCache cache = model.kvCache(Math.ceilDiv(tokens.length, 16) + 3, kv);
      Footprint footprint = model.footprint(cache);
      double bytes = footprint.bodyBytes() + footprint.outputBytes();
      System.out.printf(
          "%s on %s: loaded %.2f GB in %.2f s, %.2f GB/s%n",
          folder, backend.describe(), bytes / 1e9, seconds, bytes / seconds / 1e9);
      write(backend, model, cache, tokens, out);
    }
  }

  private static Model load(Path folder, Precision precision, Backend backend) throws IOException {
    try (DirectoryStream<Path> weights = Files.newDirectoryStream(folder, "*.safetensors")) {
      if (weights.iterator().hasNext()) {
        return Models.load(new ModelSource.Folder(folder, precision), backend);
      }
    }
    ModelConfig config = ModelConfig.read(folder);
    WeightFormat format = precision == Precision.FP8 ? WeightFormat.F8_E4M3 : WeightFormat.BF16;
    int layers = config.kvHeads().size();
    return new LlamaModel(config, DampedWeights.of(layers, format, backend), backend);
  }

  private static void write(Backend backend, Model model, KvCache cache, int[] tokens, Path out)
      throws IOException {
    TestSequence sequence = TestSequence.shuffled(tokens, 3, 7);
    int chunked = Math.max(0, tokens.length - DECODED);
    try (FileChannel channel =
        FileChannel.open(
            out,
            StandardOpenOption.CREATE,
            StandardOpenOption.TRUNCATE_EXISTING,
            StandardOpenOption.WRITE)) {
      for (int from = 0; from < tokens.length; ) {
        int to = from < chunked ? Math.min(chunked, from + CHUNK) : from + 1;
        Step step =
            backend.begin(
                TestSequence.batch(List.of(new TestSequence.Part(sequence, from, to))), null);
        float[] part = model.forward(step, cache).toHost(to - from);
        ByteBuffer bytes =
            ByteBuffer.allocate(part.length * Float.BYTES).order(ByteOrder.LITTLE_ENDIAN);
        bytes.asFloatBuffer().put(part);
        while (bytes.hasRemaining()) {
          channel.write(bytes);
        }
        from = to;
      }
    }
  }

  private static int[] ints(Path file) throws IOException {
    int[] out = new int[(int) (Files.size(file) / 4)];
    ByteBuffer.wrap(Files.readAllBytes(file)).order(ByteOrder.LITTLE_ENDIAN).asIntBuffer().get(out);
    return out;
  }
}
