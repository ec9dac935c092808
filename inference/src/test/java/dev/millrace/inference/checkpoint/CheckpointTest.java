package dev.millrace.inference.checkpoint;

import static dev.millrace.inference.checkpoint.SafetensorsBuilder.tensor;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class CheckpointTest {
  @TempDir Path folder;

  private Path file() {
    return folder.resolve("model.safetensors");
  }

  private void write(String header, int dataBytes) {
    SafetensorsBuilder.write(file(), header, dataBytes);
  }

  private void shouldRefuse(String... parts) {
    assertThatThrownBy(() -> Checkpoint.open(folder).close())
        .isInstanceOf(InvalidCheckpointException.class)
        .hasMessageContaining(folder.toString())
        .hasMessageContainingAll(parts);
  }

  @Test
  void shouldReadEachFormatAtAnyAlignment() {
    // 1, -2.5 and a subnormal half, behind a tensor of one odd byte.
    String header =
        "{\"__metadata__\": {\"format\": \"pt\"}, "
            + tensor("odd", "U8", "[1]", 0, 1)
            + ", "
            + tensor("b", "BF16", "[2]", 1, 5)
            + ", "
            + tensor("h", "F16", "[1, 2]", 5, 9)
            + ", "
            + tensor("f", "F32", "[1]", 9, 13)
            + "}";
    byte[] data = {
      0, (byte) 0x80, 0x3f, 0x20, (byte) 0xc0, 0x00, 0x3c, 0x01, 0x00, 0x00, 0x00, 0x20, 0x40
    };
    byte[] json = header.getBytes(StandardCharsets.UTF_8);
    byte[] all = new byte[json.length + data.length];
    System.arraycopy(json, 0, all, 0, json.length);
    System.arraycopy(data, 0, all, json.length, data.length);
    SafetensorsBuilder.write(file(), json.length, all, 0);

    try (Checkpoint checkpoint = Checkpoint.open(folder)) {
      assertThat(checkpoint.tensor("b", 2).decode()).containsExactly(1f, -2.5f);
      assertThat(checkpoint.tensor("h", 1, 2).decode()).containsExactly(1f, 0x1p-24f);
      assertThat(checkpoint.tensor("f", 1).decode()).containsExactly(2.5f);
      assertThat(checkpoint.names()).containsExactlyInAnyOrder("odd", "b", "h", "f");
    }
  }

  /** An FP8 matrix of one number, 1, and its scales: as they are given, the last one in F32. */
  private void writeFp8(String weightScale, int scaleBytes, byte... data) {
    String header =
        "{"
            + tensor("q.weight", "F8_E4M3", "[1, 1]", 0, 1)
            + ", "
            + tensor("q.weight_scale", weightScale, "[]", 1, 1 + scaleBytes)
            + ", "
            + tensor("q.input_scale", "F32", "[1]", 1 + scaleBytes, 5 + scaleBytes)
            + "}";
    byte[] json = header.getBytes(StandardCharsets.UTF_8);
    byte[] all = new byte[json.length + data.length];
    System.arraycopy(json, 0, all, 0, json.length);
    System.arraycopy(data, 0, all, json.length, data.length);
    SafetensorsBuilder.write(file(), json.length, all, 0);
  }

  @Test
  void shouldReadAnFp8MatrixWithItsScales() {
    writeFp8(
        "BF16",
        2,
        (byte) 0x38,
        (byte) 0x00,
        (byte) 0x40,
        (byte) 0,
        (byte) 0,
        (byte) 0,
        (byte) 0x3f);
    try (Checkpoint checkpoint = Checkpoint.open(folder)) {
      WeightData matrix = checkpoint.tensor("q.weight", 1, 1);
      assertThat(matrix.quantization()).isEqualTo(new Quantization(2, 0.5f));
      assertThat(matrix.decode()).containsExactly(2f);
    }
  }

  @Test
  void shouldRefuseAnFp8MatrixWithoutScales() {
    write("{" + tensor("q.weight", "F8_E4M3", "[1, 1]", 0, 1) + "}", 1);
    try (Checkpoint checkpoint = Checkpoint.open(folder)) {
      assertThatThrownBy(() -> checkpoint.tensor("q.weight", 1, 1))
          .isInstanceOf(InvalidCheckpointException.class)
          .hasMessageContaining("has no tensor q.weight_scale");
    }
  }

  @ParameterizedTest
  @CsvSource({"F32,4,is 0.0", "F8_E4M3,1,is F8_E4M3", "I32,4,is I32"})
  void shouldRefuseAScaleThatIsNone(String dtype, int bytes, String message) {
    writeFp8(dtype, bytes, new byte[5 + bytes]);
    try (Checkpoint checkpoint = Checkpoint.open(folder)) {
      assertThatThrownBy(() -> checkpoint.tensor("q.weight", 1, 1))
          .isInstanceOf(InvalidCheckpointException.class)
          .hasMessageContaining("the scale q.weight_scale")
          .hasMessageContaining(message);
    }
  }

  private void writeFp8Scales(float weight, float input) {
    ByteBuffer data = ByteBuffer.allocate(9).order(ByteOrder.LITTLE_ENDIAN);
    writeFp8("F32", 4, data.put((byte) 0x38).putFloat(weight).putFloat(input).array());
  }

  @ParameterizedTest
  @CsvSource({
    "1e-45,1,the scale q.weight_scale is 1.4E-45",
    "9e-31,1,from 1.0E-30 to 1.0E30",
    "1,2e30,the scale q.input_scale is 2.0E30",
    "1,Infinity,the scale q.input_scale is Infinity",
    "NaN,1,the scale q.weight_scale is NaN",
    "-1,1,the scale q.weight_scale is -1.0",
    "1e-20,1e-20,q.weight is 1.0E-20 and that of its input 1.0E-20: their product 1.0E-40",
    "1e20,1e20,their product Infinity"
  })
  void shouldRefuseScalesThatFloatCannotMultiplyBy(float weight, float input, String message) {
    writeFp8Scales(weight, input);
    try (Checkpoint checkpoint = Checkpoint.open(folder)) {
      assertThatThrownBy(() -> checkpoint.tensor("q.weight", 1, 1))
          .isInstanceOf(InvalidCheckpointException.class)
          .hasMessageContaining(message);
    }
  }

  @Test
  void shouldReadTheLeastAndTheLargestScale() {
    writeFp8Scales(1e-30f, 1e30f);
    try (Checkpoint checkpoint = Checkpoint.open(folder)) {
      assertThat(checkpoint.tensor("q.weight", 1, 1).quantization())
          .isEqualTo(new Quantization(1e-30f, 1e30f));
    }
  }

  @Test
  void shouldNameProjectionsThatHaveNoScaleForACache() {
    String[] names = {"a.k_proj.weight", "a.k_proj.k_scale", "a.v_proj.weight", "b.k_proj.weight"};
    StringBuilder header = new StringBuilder();
    for (int i = 0; i < names.length; i++) {
      header.append(i == 0 ? "{" : ", ").append(tensor(names[i], "F32", "[1]", 4 * i, 4 * i + 4));
    }
    write(header.append("}").toString(), 16);
    try (Checkpoint checkpoint = Checkpoint.open(folder)) {
      assertThat(checkpoint.withoutKvScale()).containsExactly("a.v_proj.weight", "b.k_proj.weight");
    }
  }

  @Test
  void shouldSayThatTheFolderHoldsNoWeights() {
    shouldRefuse("neither model.safetensors nor model.safetensors.index.json");
  }

  @Test
  void shouldRefuseAFileShorterThanAHeaderLength() throws IOException {
    Files.write(file(), new byte[] {1, 2, 3});
    shouldRefuse("model.safetensors", "only 3 bytes");
  }

  @ParameterizedTest
  @ValueSource(longs = {0, 3, 1000, 200_000_000, Long.MAX_VALUE, Long.MIN_VALUE, -1})
  void shouldRefuseAnImpossibleHeaderLength(long claimed) {
    SafetensorsBuilder.write(file(), claimed, new byte[] {'{', '}'}, 0);
    shouldRefuse("header claims " + Long.toUnsignedString(claimed) + " bytes");
  }

  @ParameterizedTest
  @ValueSource(
      strings = {"{\"a\": ", "nonsense", "{} {}", "[1]", "\"text\"", "{\"a\": 1}", "{\"a\": null}"})
  void shouldRefuseAHeaderThatIsNone(String header) {
    write(header, 0);
    shouldRefuse("no sound safetensors file");
  }

  @Test
  void shouldRefuseATensorNamedTwice() {
    write("{" + tensor("a", "F32", "[1]", 0, 4) + ", " + tensor("a", "F32", "[1]", 4, 8) + "}", 8);
    shouldRefuse("Duplicate field 'a'");
  }

  @Test
  void shouldRefuseADeeplyNestedHeader() {
    write("{\"a\": " + "[".repeat(100_000) + "]".repeat(100_000) + "}", 0);
    shouldRefuse("no JSON");
  }

  @Test
  void shouldRefuseATruncatedFile() {
    write("{" + tensor("model.norm.weight", "BF16", "[8]", 0, 16) + "}", 12);
    shouldRefuse("tensor model.norm.weight lies at [0, 16]", "12 bytes of data");
  }

  @Test
  void shouldRefuseDataThatNoTensorOwns() {
    write("{" + tensor("a", "F32", "[1]", 0, 4) + "}", 9);
    shouldRefuse("tensors end at byte 4 of 9");
  }

  @Test
  void shouldRefuseOverlappingTensors() {
    write("{" + tensor("a", "F32", "[2]", 0, 8) + ", " + tensor("b", "F32", "[1]", 4, 8) + "}", 8);
    shouldRefuse("tensor b begins at byte 4", "tensor a ends at 8", "must not overlap");
  }

  @Test
  void shouldRefuseGapsBetweenTensors() {
    write(
        "{" + tensor("a", "F32", "[1]", 0, 4) + ", " + tensor("b", "F32", "[1]", 8, 12) + "}", 12);
    shouldRefuse("tensor b begins at byte 8", "must not leave gaps");
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = ';',
      value = {
        "[3]; 0; 8",
        "[4294967296, 4294967296]; 0; 8",
        "[4611686018427387904, 2]; 0; 8",
        "[2]; 4; 0",
        "[2]; -8; 0",
        "[-2]; 0; 8",
        "[2.0]; 0; 8",
        "[99999999999999999999]; 0; 8",
        "\"2\"; 0; 8",
        "null; 0; 8"
      })
  void shouldRefuseAShapeOrAPlaceThatCannotBe(String shape, long begin, long end) {
    write("{" + tensor("w", "F32", shape, begin, end) + "}", 8);
    shouldRefuse("tensor w");
  }

  @Test
  void shouldNameAMissingTensor() {
    write("{" + tensor("a", "F32", "[1]", 0, 4) + "}", 4);
    try (Checkpoint checkpoint = Checkpoint.open(folder)) {
      assertThatThrownBy(() -> checkpoint.tensor("lm_head.weight", 3, 4))
          .isInstanceOf(InvalidCheckpointException.class)
          .hasMessageContaining("no tensor lm_head.weight")
          .hasMessageContaining("[3, 4]");
    }
  }

  @Test
  void shouldSayWhichShapeWasFoundAndExpected() {
    write("{" + tensor("w", "F32", "[2, 1]", 0, 8) + "}", 8);
    try (Checkpoint checkpoint = Checkpoint.open(folder)) {
      assertThatThrownBy(() -> checkpoint.tensor("w", 1, 2))
          .isInstanceOf(InvalidCheckpointException.class)
          .hasMessageContainingAll("model.safetensors", "tensor w", "[2, 1]", "[1, 2]");
    }
  }

  @Test
  void shouldRefuseAFormatThatIsNotReadOnlyWhereItIsNeeded() {
    write("{" + tensor("w", "F8_E5M2", "[4]", 0, 4) + "}", 4);
    try (Checkpoint checkpoint = Checkpoint.open(folder)) {
      assertThatThrownBy(() -> checkpoint.tensor("w", 4))
          .isInstanceOf(InvalidCheckpointException.class)
          .hasMessageContainingAll("tensor w", "F8_E5M2", "BF16, F16, F32");
    }
  }

  @Test
  void shouldReadShards() throws IOException {
    SafetensorsBuilder.write(
        folder.resolve("model-00001-of-00002.safetensors"),
        "{" + tensor("a", "F32", "[1]", 0, 4) + "}",
        4);
    SafetensorsBuilder.write(
        folder.resolve("model-00002-of-00002.safetensors"),
        "{" + tensor("b", "BF16", "[2]", 0, 4) + "}",
        4);
    index(
        "{\"weight_map\": {\"a\": \"model-00001-of-00002.safetensors\","
            + " \"b\": \"model-00002-of-00002.safetensors\"}}");
    try (Checkpoint checkpoint = Checkpoint.open(folder)) {
      assertThat(checkpoint.tensor("a", 1).format()).isEqualTo(WeightFormat.F32);
      assertThat(checkpoint.tensor("b", 2).format()).isEqualTo(WeightFormat.BF16);
    }
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "../secret.safetensors",
        "/etc/secret.safetensors",
        "a/b.safetensors",
        "..\\\\b.safetensors",
        "..safetensors",
        "model.bin",
        ""
      })
  void shouldRefuseAShardOutsideTheFolder(String shard) throws IOException {
    index("{\"weight_map\": {\"a\": \"" + shard + "\"}}");
    shouldRefuse("model.safetensors.index.json", "tensor a", "beside the index");
  }

  @Test
  void shouldNameAMissingShard() throws IOException {
    index("{\"weight_map\": {\"a\": \"model-1.safetensors\"}}");
    shouldRefuse("model-1.safetensors is missing");
  }

  @Test
  void shouldSayThatAShardLacksATensor() throws IOException {
    write("{" + tensor("a", "F32", "[1]", 0, 4) + "}", 4);
    index("{\"weight_map\": {\"b\": \"model.safetensors\"}}");
    shouldRefuse("tensor b", "model.safetensors, which does not hold it");
  }

  @ParameterizedTest
  @ValueSource(strings = {"{", "[]", "{\"weight_map\": {}}", "{\"weight_map\": 3}", "{}"})
  void shouldRefuseABrokenIndex(String index) throws IOException {
    index(index);
    shouldRefuse("model.safetensors.index.json");
  }

  @Test
  void shouldNeverThrowAnythingElseOnDamage() {
    long seed = 20_260_101;
    Random random = new Random(seed);
    String sound =
        "{" + tensor("a", "F32", "[2, 3]", 0, 24) + ", " + tensor("b", "BF16", "[4]", 24, 32) + "}";
    for (int i = 0; i < 3000; i++) {
      byte[] header = sound.getBytes(StandardCharsets.UTF_8);
      for (int n = random.nextInt(3); n >= 0; n--) {
        header[random.nextInt(header.length)] = (byte) (32 + random.nextInt(95));
      }
      SafetensorsBuilder.write(
          file(), header.length - random.nextInt(2), header, 30 + random.nextInt(4));
      try (Checkpoint checkpoint = Checkpoint.open(folder)) {
        assertThat(checkpoint.names()).hasSizeLessThanOrEqualTo(2);
      } catch (InvalidCheckpointException e) {
        assertThat(e).as("seed %d, round %d", seed, i).hasMessageContaining("model.safetensors");
      }
    }
  }

  private void index(String json) throws IOException {
    Files.writeString(folder.resolve("model.safetensors.index.json"), json);
  }
}
