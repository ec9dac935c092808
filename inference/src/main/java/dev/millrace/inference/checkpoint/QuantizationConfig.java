package dev.millrace.inference.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/**
 * What a checkpoint says of how it was quantised, in the way of NVIDIA's Model Optimizer: {@code
 * quantization_config} of config.json, or {@code hf_quant_config.json} beside it. Weights are FP8
 * (e4m3) with one scale for each matrix and one for its input, or not quantised at all.
 *
 * @param weights whether linear layers are FP8
 * @param keysAndValues whether the checkpoint wants its KV cache FP8
 * @param excluded names of modules that stay as they are; {@code *} and {@code ?} stand for any
 *     text and any character
 */
public record QuantizationConfig(boolean weights, boolean keysAndValues, List<String> excluded) {
  /** Of a checkpoint that is not quantised. */
  public static final QuantizationConfig NONE = new QuantizationConfig(false, false, List.of());

  private static final String IN_CONFIG = "quantization_config";
  private static final String FILE = "hf_quant_config.json";
  private static final String KV_ALGO = "kv_cache_quant_algo";
  private static final String KV_SCHEME = "kv_cache_scheme";
  private static final String SUPPORTED =
      "FP8 of NVIDIA's Model Optimizer, with a scale for each matrix and each input";

  public QuantizationConfig {
    excluded = List.copyOf(excluded);
  }

  /**
   * Reads it from where it is. The one in config.json counts where both are there, and the other
   * one for the KV cache if the first says nothing of it.
   */
  static QuantizationConfig read(JsonObject config, Path file) {
    Path beside = file.resolveSibling(FILE);
    if (config.has(IN_CONFIG)) {
      JsonObject quantization = config.object(IN_CONFIG);
      if (!lower(quantization, "quant_method").equals("modelopt")) {
        throw quantization.unsupported("quant_method", "modelopt");
      }
      boolean nested = quantization.has("quantization");
      JsonObject block = nested ? quantization.object("quantization") : quantization;
      QuantizationConfig read = nested ? ofFile(block) : ofConfig(block);
      if (speaksOf(block, KV_ALGO) || speaksOf(block, KV_SCHEME) || !Files.exists(beside)) {
        return read;
      }
      boolean keysAndValues = isFp8(JsonObject.read(beside).object("quantization"), KV_ALGO);
      return new QuantizationConfig(read.weights, keysAndValues, read.excluded);
    }
    return Files.exists(beside) ? ofFile(JsonObject.read(beside).object("quantization")) : NONE;
  }

  /** Also by null: there is none. */
  private static boolean speaksOf(JsonObject object, String key) {
    return !object.get(key).isMissingNode();
  }

  private static QuantizationConfig ofFile(JsonObject quantization) {
    return new QuantizationConfig(
        isFp8(quantization, "quant_algo"),
        isFp8(quantization, KV_ALGO),
        texts(quantization, "exclude_modules"));
  }

  private static QuantizationConfig ofConfig(JsonObject quantization) {
    if (quantization.get("quant_algo").isMissingNode()) {
      throw quantization.bad("quant_algo", SUPPORTED);
    }
    boolean weights = isFp8(quantization, "quant_algo");
    boolean keysAndValues = isFp8(quantization, KV_ALGO);
    if (quantization.has(KV_SCHEME)) {
      JsonObject scheme = quantization.object(KV_SCHEME);
      if (scheme.positive("num_bits", 64) != 8) {
        throw scheme.unsupported("num_bits", "8");
      }
      if (!lower(scheme, "type").equals("float")) {
        throw scheme.unsupported("type", "float");
      }
      if (scheme.flag("dynamic", false)) {
        throw scheme.unsupported("dynamic", "false: scales that the checkpoint holds");
      }
      keysAndValues = true;
    }
    List<String> excluded = new ArrayList<>(texts(quantization, "ignore"));
    excluded.addAll(texts(quantization, "exclude_modules"));
    return new QuantizationConfig(weights, keysAndValues, excluded);
  }

  private static boolean isFp8(JsonObject object, String key) {
    if (!object.has(key)) {
      return false;
    }
    if (!lower(object, key).equals("fp8")) {
      throw object.unsupported(key, SUPPORTED);
    }
    return true;
  }

  private static String lower(JsonObject object, String key) {
    return object.text(key).toLowerCase(Locale.ROOT);
  }

  private static List<String> texts(JsonObject object, String key) {
    List<String> texts = new ArrayList<>();
    if (object.has(key)) {
      JsonNode array = object.get(key);
      for (JsonNode text : array) {
        if (!text.isTextual()) {
          throw object.bad(key, "an array of texts");
        }
        texts.add(text.textValue());
      }
      if (!array.isArray()) {
        throw object.bad(key, "an array of texts");
      }
    }
    return texts;
  }

  /**
   * Whether a module stays as it is: it, or one that it is part of, is named, from whichever part
   * of its name on, or its name fits a pattern.
   *
   * @param module {@code model.layers.0.mlp.down_proj}, say
   */
  public boolean excludes(String module) {
    for (String entry : excluded) {
      boolean pattern = entry.indexOf('*') >= 0 || entry.indexOf('?') >= 0;
      if (pattern ? fits(entry, module) : ("." + module + ".").contains("." + entry + ".")) {
        return true;
      }
    }
    return false;
  }

  /** In time of at most both lengths multiplied, whatever the pattern. */
  private static boolean fits(String pattern, String text) {
    int p = 0;
    int t = 0;
    int star = -1;
    int taken = 0;
    while (t < text.length()) {
      char c = p < pattern.length() ? pattern.charAt(p) : 0;
      if (c == '*') {
        star = p++;
        taken = t;
      } else if (p < pattern.length() && (c == '?' || c == text.charAt(t))) {
        p++;
        t++;
      } else if (star >= 0) {
        // The last star takes one more character.
        p = star + 1;
        t = ++taken;
      } else {
        return false;
      }
    }
    while (p < pattern.length() && pattern.charAt(p) == '*') {
      p++;
    }
    return p == pattern.length();
  }
}
