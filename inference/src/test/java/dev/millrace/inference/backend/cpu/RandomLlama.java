package dev.millrace.inference.backend.cpu;

import java.io.IOException;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.SplittableRandom;

/** Writes a random bf16 Llama that is larger than any cache. */
final class RandomLlama {
  static final int VOCAB = 32_000;
  private static final int HIDDEN = 2048;
  private static final int HEADS = 32;
  private static final int KV_HEADS = 8;
  private static final int HEAD_DIM = 64;
  private static final int WIDTH = 8192;
  private static final int LAYERS = 4;

  /** What a step reads of it: embedding and output layer are one matrix. */
  static final long WEIGHT_BYTES =
      2 * (layerWeights() * LAYERS + (long) VOCAB * HIDDEN + HIDDEN * (2L * LAYERS + 1));

  private RandomLlama() {}

  /** Multiply-adds of a prompt's linear layers; logits of its last token only. */
  static double multipliesOfPrompt(int tokens) {
    return (double) layerWeights() * LAYERS * tokens + (double) VOCAB * HIDDEN;
  }

  private static long layerWeights() {
    return (long) HIDDEN * HEAD_DIM * (2 * HEADS + 2 * KV_HEADS) + 3L * HIDDEN * WIDTH;
  }

  /** A new temporary folder with the checkpoint. */
  static Path write() {
    try {
      Path folder = Files.createTempDirectory("millrace-benchmark");
      write(folder);
      return folder;
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static void write(Path folder) throws IOException {
    Files.writeString(
        folder.resolve("config.json"),
        """
        {"architectures": ["LlamaForCausalLM"], "vocab_size": %d, "hidden_size": %d,
         "num_attention_heads": %d, "num_key_value_heads": %d, "head_dim": %d,
         "intermediate_size": %d, "num_hidden_layers": %d, "max_position_embeddings": 4096,
         "rms_norm_eps": 1e-5, "rope_theta": 500000, "tie_word_embeddings": true}
        """
            .formatted(VOCAB, HIDDEN, HEADS, KV_HEADS, HEAD_DIM, WIDTH, LAYERS));
    Map<String, int[]> shapes = shapes();
    StringBuilder header = new StringBuilder("{");
    long at = 0;
    for (Map.Entry<String, int[]> tensor : shapes.entrySet()) {
      int[] shape = tensor.getValue();
      long bytes = 2L * shape[0] * (shape.length == 2 ? shape[1] : 1);
      header
          .append(at == 0 ? "" : ", ")
          .append(
              "\"%s\": {\"dtype\": \"BF16\", \"shape\": [%s], \"data_offsets\": [%d, %d]}"
                  .formatted(
                      tensor.getKey(),
                      shape.length == 2 ? shape[0] + ", " + shape[1] : "" + shape[0],
                      at,
                      at + bytes));
      at += bytes;
    }
    // Data begins where a header's length says, as a rule at a multiple of 8.
    header.append("}").append(" ".repeat(8 - (header.length() + 1) % 8));
    byte[] json = header.toString().getBytes(StandardCharsets.UTF_8);
    try (OutputStream out = Files.newOutputStream(folder.resolve("model.safetensors"))) {
      ByteBuffer length = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN);
      out.write(length.putLong(json.length).array());
      out.write(json);
      writeNumbers(out, at / 2);
    }
  }

  /** Small numbers: sign, an exponent from 2^-8 to 2^-5, 7 bits of mantissa. */
  private static void writeNumbers(OutputStream out, long count) throws IOException {
    SplittableRandom random = new SplittableRandom(1);
    byte[] buffer = new byte[1 << 16];
    for (long written = 0; written < count; written += buffer.length / 2) {
      int n = (int) Math.min(buffer.length / 2, count - written);
      for (int i = 0; i < n; i++) {
        int bits = random.nextInt();
        int bf16 = (bits & 0x8000) | ((119 + (bits >> 16 & 3)) << 7) | (bits & 0x7f);
        buffer[2 * i] = (byte) bf16;
        buffer[2 * i + 1] = (byte) (bf16 >> 8);
      }
      out.write(buffer, 0, 2 * n);
    }
  }

  private static Map<String, int[]> shapes() {
    Map<String, int[]> shapes = new LinkedHashMap<>();
    shapes.put("model.embed_tokens.weight", new int[] {VOCAB, HIDDEN});
    for (int i = 0; i < LAYERS; i++) {
      String p = "model.layers." + i + ".";
      shapes.put(p + "input_layernorm.weight", new int[] {HIDDEN});
      shapes.put(p + "self_attn.q_proj.weight", new int[] {HEADS * HEAD_DIM, HIDDEN});
      shapes.put(p + "self_attn.k_proj.weight", new int[] {KV_HEADS * HEAD_DIM, HIDDEN});
      shapes.put(p + "self_attn.v_proj.weight", new int[] {KV_HEADS * HEAD_DIM, HIDDEN});
      shapes.put(p + "self_attn.o_proj.weight", new int[] {HIDDEN, HEADS * HEAD_DIM});
      shapes.put(p + "post_attention_layernorm.weight", new int[] {HIDDEN});
      shapes.put(p + "mlp.gate_proj.weight", new int[] {WIDTH, HIDDEN});
      shapes.put(p + "mlp.up_proj.weight", new int[] {WIDTH, HIDDEN});
      shapes.put(p + "mlp.down_proj.weight", new int[] {HIDDEN, WIDTH});
    }
    shapes.put("model.norm.weight", new int[] {HIDDEN});
    return shapes;
  }

  static void delete(Path folder) throws IOException {
    Files.deleteIfExists(folder.resolve("model.safetensors"));
    Files.deleteIfExists(folder.resolve("config.json"));
    Files.deleteIfExists(folder);
  }
}
