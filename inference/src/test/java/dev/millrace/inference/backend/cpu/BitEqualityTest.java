package dev.millrace.inference.backend.cpu;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.backend.cpu.LogitBits.Way;
import dev.millrace.inference.checkpoint.WeightFormat;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/** What a row comes to depends on nothing but itself and its past, to the bit. */
class BitEqualityTest {
  private static final Path CHECKPOINTS = Path.of("src/test/resources/checkpoints");

  @ParameterizedTest
  @ValueSource(
      strings = {
        "llama-plain-bf16",
        "llama-llama3-f32-tied",
        "llama-yarn-f16-sharded",
        "nemotron-nas-bf16"
      })
  void shouldGiveTheSameLogitsInAnyBatchChunkAndThreadCount(String name) {
    Path checkpoint = CHECKPOINTS.resolve(name);
    int[] expected = LogitBits.compute(checkpoint, new Way(1, new int[] {1}, 0));
    for (Way way :
        List.of(
            new Way(1, new int[] {150}, 0),
            new Way(2, new int[] {150}, 0),
            new Way(3, new int[] {7, 1, 30}, 0),
            new Way(2, new int[] {1}, 2),
            new Way(2, new int[] {16, 5}, 1),
            new Way(3, new int[] {1, 60}, 2))) {
      assertThat(LogitBits.compute(checkpoint, way)).as("%s", way).isEqualTo(expected);
    }
  }

  @ParameterizedTest
  @EnumSource(mode = EnumSource.Mode.EXCLUDE, names = "F8_E4M3") // widened to bf16
  void shouldMultiplyARowToTheSameBitsInAnyCompany(WeightFormat format) {
    int inputs = 1100;
    int outputs = 517;
    int most = 60;
    long seed = 5;
    Random random = new Random(seed);
    try (Arena arena = Arena.ofShared();
        Workers one = new Workers(1);
        Workers three = new Workers(3)) {
      CpuWeight weight = weight(arena, format, outputs, inputs, random);
      float[] x = new float[most * inputs];
      for (int i = 0; i < x.length; i++) {
        x[i] = (float) random.nextGaussian();
      }
      float[] expected = new float[most * outputs];
      Linear alone = new Linear(one);
      for (int r = 0; r < most; r++) {
        float[] y = new float[outputs];
        alone.multiply(Arrays.copyOfRange(x, r * inputs, (r + 1) * inputs), 1, weight, null, y);
        System.arraycopy(y, 0, expected, r * outputs, outputs);
      }
      for (int rows : new int[] {1, 2, 3, 48, 49, 60}) {
        float[] y = new float[rows * outputs];
        new Linear(three).multiply(x, rows, weight, null, y);
        assertThat(bits(y))
            .as("%s, %d rows, seed %d", format, rows, seed)
            .isEqualTo(bits(Arrays.copyOf(expected, y.length)));
      }
    }
  }

  /** The Java launcher's flag halves the vectors; where they are that small already, nothing. */
  @Test
  void shouldGiveTheSameLogitsWithNarrowVectors() throws IOException, InterruptedException {
    Path checkpoint = CHECKPOINTS.resolve("nemotron-nas-bf16");
    int[] expected = LogitBits.compute(checkpoint, new Way(1, new int[] {23}, 0));
    Process process =
        new ProcessBuilder(
                ProcessHandle.current().info().command().orElseThrow(),
                "-XX:MaxVectorSize=16",
                "--add-modules=jdk.incubator.vector",
                "--enable-native-access=ALL-UNNAMED",
                "-cp",
                System.getProperty("java.class.path"),
                LogitBits.class.getName(),
                checkpoint.toString())
            .redirectError(ProcessBuilder.Redirect.DISCARD)
            .start();
    String output = new String(process.getInputStream().readAllBytes()).trim();
    assertThat(process.waitFor()).isZero();
    assertThat(output).isEqualTo("4 " + Arrays.hashCode(expected));
  }

  private static CpuWeight weight(
      Arena arena, WeightFormat format, int rows, int columns, Random random) {
    MemorySegment data = arena.allocate(format.bytes((long) rows * columns));
    byte[] bytes = new byte[(int) data.byteSize()];
    random.nextBytes(bytes);
    int size = (int) format.bytes(1);
    for (int i = size - 1; i < bytes.length; i += size) {
      // Exponents of moderate numbers, for each of the formats.
      bytes[i] = (byte) (bytes[i] & 0x80 | (format == WeightFormat.F16 ? 0x30 : 0x3c));
    }
    MemorySegment.copy(bytes, 0, data, java.lang.foreign.ValueLayout.JAVA_BYTE, 0, bytes.length);
    return new CpuWeight(data, format, rows, columns, null);
  }

  private static int[] bits(float[] x) {
    int[] bits = new int[x.length];
    for (int i = 0; i < x.length; i++) {
      bits[i] = Float.floatToRawIntBits(x[i]);
    }
    return bits;
  }
}
