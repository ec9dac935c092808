package dev.millrace.tests;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Random;
import java.util.function.Consumer;

/**
 * A complete Hugging Face checkpoint with random weights: everything about it is real but what it
 * says. Tests damage it to see what the worker makes of it.
 */
final class RandomCheckpoint {
  private static final ObjectMapper JSON = new ObjectMapper();
  private static final int HIDDEN = 64;
  private static final int FFN = 128;
  private static final int HEADS = 4;
  private static final int KV_HEADS = 2;
  private static final int HEAD_DIM = 16;
  private static final int LAYERS = 2;

  /** Longest text, in tokens. */
  static final int CONTEXT = 512;

  /** A message that the template refuses, and what it says then. */
  static final String RAISES = "raise";

  static final String RAISED = "this template takes no such message";

  private static final String TEMPLATE =
      """
      {{- '<|begin_of_text|>' -}}
      {%- for message in messages -%}
      {%- if message['content'] == 'raise' -%}
      {{- raise_exception('this template takes no such message') -}}
      {%- endif -%}
      {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' -}}
      {{- message['content'] + '<|eot_id|>' -}}
      {%- endfor -%}
      {%- if add_generation_prompt -%}
      {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
      {%- endif -%}
      """;

  private RandomCheckpoint() {}

  /** Writes it into a folder of its own; {@code home} is the project's. */
  static Path write(Path folder, Path home, long seed) {
    try {
      Files.createDirectories(folder);
      Path tokenizer = home.resolve("inference/src/test/resources/text/tokenizer");
      for (String file : new String[] {"tokenizer.json", "tokenizer_config.json"}) {
        Files.copy(tokenizer.resolve(file), folder.resolve(file));
      }
      Map<String, Integer> specials = new LinkedHashMap<>();
      int vocabulary = vocabulary(folder.resolve("tokenizer.json"), specials);
      Files.writeString(folder.resolve("chat_template.jinja"), TEMPLATE);
      ObjectNode config = config(vocabulary, specials);
      JSON.writeValue(folder.resolve("config.json").toFile(), config);
      ObjectNode generation = JSON.createObjectNode();
      generation.set("eos_token_id", config.get("eos_token_id"));
      JSON.writeValue(folder.resolve("generation_config.json").toFile(), generation);
      writeWeights(folder.resolve("model.safetensors"), shapes(vocabulary), seed);
      return folder;
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** Changes a JSON file of a checkpoint. */
  static void edit(Path file, Consumer<ObjectNode> change) {
    try {
      ObjectNode node = (ObjectNode) JSON.readTree(file.toFile());
      change.accept(node);
      JSON.writeValue(file.toFile(), node);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** Writes the weights again without one tensor. */
  static void dropTensor(Path folder, String name) {
    try {
      int vocabulary = vocabulary(folder.resolve("tokenizer.json"), new LinkedHashMap<>());
      Map<String, int[]> shapes = shapes(vocabulary);
      if (shapes.remove(name) == null) {
        throw new IllegalArgumentException("there is no tensor " + name);
      }
      writeWeights(folder.resolve("model.safetensors"), shapes, 1);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static int vocabulary(Path tokenizer, Map<String, Integer> specials) throws IOException {
    int highest = 0;
    var root = JSON.readTree(tokenizer.toFile());
    for (var token : root.path("model").path("vocab")) {
      highest = Math.max(highest, token.intValue());
    }
    for (var token : root.path("added_tokens")) {
      specials.put(token.path("content").textValue(), token.path("id").intValue());
      highest = Math.max(highest, token.path("id").intValue());
    }
    return highest + 1;
  }

  private static ObjectNode config(int vocabulary, Map<String, Integer> specials) {
    ObjectNode config = JSON.createObjectNode();
    config.putArray("architectures").add("LlamaForCausalLM");
    config.put("model_type", "llama");
    config.put("hidden_size", HIDDEN);
    config.put("intermediate_size", FFN);
    config.put("num_attention_heads", HEADS);
    config.put("num_key_value_heads", KV_HEADS);
    config.put("head_dim", HEAD_DIM);
    config.put("num_hidden_layers", LAYERS);
    config.put("max_position_embeddings", CONTEXT);
    config.put("rms_norm_eps", 1e-5);
    config.put("rope_theta", 10000.0);
    config.put("hidden_act", "silu");
    config.put("tie_word_embeddings", false);
    config.put("attention_bias", false);
    config.put("mlp_bias", false);
    config.put("torch_dtype", "bfloat16");
    config.put("vocab_size", vocabulary);
    config.put("bos_token_id", specials.get("<|begin_of_text|>"));
    ArrayNode eos = config.putArray("eos_token_id");
    eos.add(specials.get("<|end_of_text|>")).add(specials.get("<|eot_id|>"));
    return config;
  }

  private static Map<String, int[]> shapes(int vocabulary) {
    Map<String, int[]> shapes = new LinkedHashMap<>();
    shapes.put("model.embed_tokens.weight", new int[] {vocabulary, HIDDEN});
    for (int layer = 0; layer < LAYERS; layer++) {
      String at = "model.layers." + layer + ".";
      shapes.put(at + "input_layernorm.weight", new int[] {HIDDEN});
      shapes.put(at + "self_attn.q_proj.weight", new int[] {HEADS * HEAD_DIM, HIDDEN});
      shapes.put(at + "self_attn.k_proj.weight", new int[] {KV_HEADS * HEAD_DIM, HIDDEN});
      shapes.put(at + "self_attn.v_proj.weight", new int[] {KV_HEADS * HEAD_DIM, HIDDEN});
      shapes.put(at + "self_attn.o_proj.weight", new int[] {HIDDEN, HEADS * HEAD_DIM});
      shapes.put(at + "post_attention_layernorm.weight", new int[] {HIDDEN});
      shapes.put(at + "mlp.gate_proj.weight", new int[] {FFN, HIDDEN});
      shapes.put(at + "mlp.up_proj.weight", new int[] {FFN, HIDDEN});
      shapes.put(at + "mlp.down_proj.weight", new int[] {HIDDEN, FFN});
    }
    shapes.put("model.norm.weight", new int[] {HIDDEN});
    shapes.put("lm_head.weight", new int[] {vocabulary, HIDDEN});
    return shapes;
  }

  /** An 8-byte length, a JSON header, and the tensors one after another, in bfloat16. */
  private static void writeWeights(Path file, Map<String, int[]> shapes, long seed)
      throws IOException {
    ObjectNode header = JSON.createObjectNode();
    int end = 0;
    for (Map.Entry<String, int[]> tensor : shapes.entrySet()) {
      ObjectNode entry = header.putObject(tensor.getKey());
      entry.put("dtype", "BF16");
      ArrayNode shape = entry.putArray("shape");
      int size = 1;
      for (int dimension : tensor.getValue()) {
        shape.add(dimension);
        size *= dimension;
      }
      entry.putArray("data_offsets").add(end).add(end + 2 * size);
      end += 2 * size;
    }
    String text = JSON.writeValueAsString(header);
    text += " ".repeat((8 - text.length() % 8) % 8);
    byte[] head = text.getBytes(StandardCharsets.UTF_8);
    ByteBuffer out = ByteBuffer.allocate(8 + head.length + end).order(ByteOrder.LITTLE_ENDIAN);
    out.putLong(head.length).put(head);
    Random random = new Random(seed);
    for (Map.Entry<String, int[]> tensor : shapes.entrySet()) {
      boolean norm = tensor.getValue().length == 1;
      int size = 1;
      for (int dimension : tensor.getValue()) {
        size *= dimension;
      }
      for (int i = 0; i < size; i++) {
        float value = norm ? 1 : (float) (random.nextGaussian() * 0.2);
        out.putShort((short) (Float.floatToRawIntBits(value) >>> 16));
      }
    }
    Files.write(file, out.array());
  }
}
