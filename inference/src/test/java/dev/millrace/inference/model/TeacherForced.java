package dev.millrace.inference.model;

import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.backend.KvCache;
import dev.millrace.inference.backend.Step;
import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.inference.device.DeviceOptions;
import dev.millrace.inference.device.Devices;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.List;

/**
 * Writes the logits of every position of a given sequence, for {@code
 * src/test/python/true_shapes.py} to compare, and says how fast the checkpoint was loaded. The last
 * positions are computed one at a time, those before them in chunks.
 *
 * <pre>TeacherForced DEVICE CHECKPOINT TOKENS OUT</pre>
 *
 * TOKENS are little-endian ints, OUT is little-endian floats [tokens][vocabulary]. With a {@code
 * config.json} for a checkpoint the weights are made up.
 */
public final class TeacherForced {
  private static final int CHUNK = 201;
  private static final int DECODED = 40;

  private TeacherForced() {}

  /** See the class. */
  public static void main(String[] args) throws IOException {
    DeviceOptions device = DeviceOptions.of(args[0]);
    Path folder = Path.of(args[1]);
    int[] tokens = ints(Path.of(args[2]));
    try (Backend backend = Devices.backend(device)) {
      long start = System.nanoTime();
      try (Model model = Models.load(source(folder), backend)) {
        backend.await();
        double seconds = (System.nanoTime() - start) / 1e9;
        KvCache cache = model.kvCache(Math.ceilDiv(tokens.length, 16) + 3);
        Footprint footprint = model.footprint(cache);
        double bytes = footprint.bodyBytes() + footprint.outputBytes();
        System.out.printf(
            "%s on %s: loaded %.2f GB in %.2f s, %.2f GB/s%n",
            folder, backend.describe(), bytes / 1e9, seconds, bytes / seconds / 1e9);
        write(backend, model, cache, tokens, Path.of(args[3]));
      }
    }
  }

  private static ModelSource source(Path path) {
    return Files.isDirectory(path)
        ? new ModelSource.Folder(path)
        : new ModelSource.Random(path, WeightFormat.BF16, 1);
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
