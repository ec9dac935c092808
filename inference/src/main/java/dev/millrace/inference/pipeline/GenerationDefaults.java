package dev.millrace.inference.pipeline;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.millrace.inference.api.InvalidRequestException;
import dev.millrace.inference.api.SamplingParams;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/** What a checkpoint's {@code generation_config.json} says about sampling. */
final class GenerationDefaults {
  private static final String FILE = "generation_config.json";

  /** What transformers uses where {@code do_sample} is true and a value is left out. */
  private static final double TEMPERATURE = 1;

  private static final double TOP_P = 1;
  private static final int TOP_K = 50;

  private GenerationDefaults() {}

  /**
   * Greedy unless {@code do_sample} is true, as in transformers; then its temperature, top_p and
   * top_k.
   *
   * @throws IOException if the file is broken or a value out of range; the message names both
   */
  static SamplingParams read(Path folder) throws IOException {
    Path file = folder.resolve(FILE);
    if (!Files.exists(file)) {
      return SamplingParams.greedy(1);
    }
    JsonNode config = new ObjectMapper().readTree(Files.readAllBytes(file));
    if (!config.path("do_sample").asBoolean(false)) {
      return SamplingParams.greedy(1);
    }
    try {
      return new SamplingParams(
          (float) number(file, config, "temperature", TEMPERATURE),
          (float) number(file, config, "top_p", TOP_P),
          (int) number(file, config, "top_k", TOP_K),
          0,
          1,
          0,
          0,
          0,
          1,
          0,
          List.of(),
          false,
          -1);
    } catch (InvalidRequestException e) {
      throw new IOException(file + ": " + e.getMessage(), e);
    }
  }

  private static double number(Path file, JsonNode config, String key, double standard)
      throws IOException {
    JsonNode value = config.path(key);
    if (value.isMissingNode() || value.isNull()) {
      return standard;
    }
    if (!value.isNumber()) {
      throw new IOException(file + ": " + key + " is " + value + ", it must be a number");
    }
    return value.doubleValue();
  }
}
