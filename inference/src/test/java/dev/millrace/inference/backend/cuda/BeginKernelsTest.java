package dev.millrace.inference.backend.cuda;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.kernels.BeginKernels;
import dev.millrace.kernels.BeginKernels.Angles;
import dev.millrace.kernels.BeginKernels.Embedding;
import dev.millrace.kernels.BeginKernels.Tables;
import dev.millrace.kernels.Device;
import dev.millrace.kernels.DeviceMemory;
import dev.millrace.kernels.PinnedMemory;
import dev.millrace.kernels.Stream;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Random;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * Needs a GPU: what a step begins with as one kernel, against copy, embedding and angles one after
 * another.
 */
class BeginKernelsTest {
  private static final long SEED = 5;
  private static final int VOCAB = 50;
  private static final int SAMPLED = 8;
  private static final double SCALE = 1.25;
  private static final int STEPS = 3;

  /** Places in memory, one behind another. */
  private static final class Places {
    private long next;

    Places(long first) {
      this.next = first;
    }

    long of(long bytes) {
      long at = next;
      next += Math.ceilDiv(bytes, 256) * 256;
      return at;
    }
  }

  /** What one way reads and leaves. */
  private record Way(long tables, long out, long cos, long sin) {
    Embedding embedding(int rows, long sampled, long table, int width) {
      return new Embedding(tables, tables + 4L * rows, sampled, table, out, width);
    }

    Angles angles(int rows, long frequencies, int pairs) {
      return new Angles(tables + 8L * rows, frequencies, cos, sin, pairs, SCALE);
    }
  }

  @ParameterizedTest
  @CsvSource({
    // rows, width, pairs, further numbers of the tables
    "1, 4096, 64, 70",
    "1, 8, 1, 1",
    "2, 200, 32, 5000",
    "3, 203, 0, 9",
    "40, 136, 600, 100000",
  })
  void shouldDoAllThatAStepBeginsWith(int rows, int width, int pairs, int more) {
    Gpu.require();
    Random random = new Random(SEED);
    int bytes = Math.ceilDiv((3 * rows + more) * Integer.BYTES, 16) * 16;
    long result = 4L * rows * Math.max(1, pairs);
    long room = 2L * (bytes + 2L * rows * width + 2 * result) + 2L * VOCAB * width + (1 << 14);
    try (Device device = Device.open(0)) {
      device.makeCurrent();
      try (Stream stream = new Stream();
          DeviceMemory memory = new DeviceMemory(room);
          PinnedMemory host = new PinnedMemory(room);
          PinnedMemory tables = new PinnedMemory(STEPS * (long) bytes);
          BeginKernels kernels = new BeginKernels()) {
        fill(host.segment(), random, pairs);
        memory.upload(memory.address(), host, 0, room, stream);
        Places places = new Places(memory.address());
        long frequencies = places.of(8L * pairs);
        long sampled = places.of(4L * SAMPLED);
        upload(memory, host, sampled, sampled(random), stream);
        long table = places.of(2L * VOCAB * width);
        Way[] ways = new Way[2];
        for (int i = 0; i < ways.length; i++) {
          ways[i] =
              new Way(
                  places.of(bytes),
                  places.of(2L * rows * width),
                  places.of(result),
                  places.of(result));
        }
        for (int step = 0; step < STEPS; step++) {
          long from = step * (long) bytes;
          MemorySegment own = tables.segment().asSlice(from, bytes);
          MemorySegment.copy(
              numbers(random, rows, bytes / 4), 0, own, ValueLayout.JAVA_INT, 0, bytes / 4);
          Way apart = ways[0];
          memory.upload(apart.tables, tables, from, bytes, stream);
          kernels.embed(apart.embedding(rows, sampled, table, width), rows, stream);
          if (pairs > 0) {
            kernels.angles(apart.angles(rows, frequencies, pairs), rows, stream);
          }
          Way together = ways[1];
          kernels.begin(
              new Tables(tables.address(from, bytes), together.tables, bytes),
              together.embedding(rows, sampled, table, width),
              together.angles(rows, frequencies, pairs),
              rows,
              stream);
          String what = "seed %d, step %d".formatted(SEED, step);
          for (long[] pair :
              new long[][] {
                {apart.tables, together.tables, bytes},
                {apart.out, together.out, 2L * rows * width},
                {apart.cos, together.cos, 4L * rows * pairs},
                {apart.sin, together.sin, 4L * rows * pairs}
              }) {
            byte[] expected = download(memory, host, pair[0], pair[2], stream);
            assertThat(download(memory, host, pair[1], pair[2], stream))
                .as(what)
                .isEqualTo(expected);
          }
          assertThat(download(memory, host, together.tables, bytes, stream))
              .as(what)
              .isEqualTo(own.toArray(ValueLayout.JAVA_BYTE));
        }
      }
    }
  }

  /** Anything, but frequencies that are numbers at the beginning. */
  private static void fill(MemorySegment to, Random random, int pairs) {
    byte[] any = new byte[(int) to.byteSize()];
    random.nextBytes(any);
    MemorySegment.copy(any, 0, to, ValueLayout.JAVA_BYTE, 0, any.length);
    for (int i = 0; i < pairs; i++) {
      to.setAtIndex(ValueLayout.JAVA_DOUBLE, i, random.nextDouble());
    }
  }

  /** What the step before drew; in one row nothing. */
  private static int[] sampled(Random random) {
    int[] sampled = random.ints(SAMPLED, 0, VOCAB).toArray();
    sampled[random.nextInt(SAMPLED)] = -1;
    return sampled;
  }

  /** Tokens, where they come from, positions, and whatever else there is. */
  private static int[] numbers(Random random, int rows, int count) {
    int[] numbers = random.ints(count).toArray();
    for (int row = 0; row < rows; row++) {
      boolean pending = random.nextBoolean();
      numbers[row] = pending ? 0 : random.nextInt(VOCAB);
      numbers[rows + row] = pending ? random.nextInt(SAMPLED) : -1;
      numbers[2 * rows + row] = random.nextInt(random.nextBoolean() ? 1000 : 5_000_000);
    }
    return numbers;
  }

  private static void upload(
      DeviceMemory memory, PinnedMemory host, long to, int[] values, Stream stream) {
    stream.synchronize();
    MemorySegment.copy(values, 0, host.segment(), ValueLayout.JAVA_INT, 0, values.length);
    memory.upload(to, host, 0, 4L * values.length, stream);
    stream.synchronize();
  }

  private static byte[] download(
      DeviceMemory memory, PinnedMemory host, long from, long bytes, Stream stream) {
    memory.download(from, host, 0, bytes, stream);
    stream.synchronize();
    return host.segment().asSlice(0, bytes).toArray(ValueLayout.JAVA_BYTE);
  }
}
