package dev.millrace.inference.token;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** The golden files that src/test/python/text_fixtures.py made. */
public final class TextFixtures {
  private TextFixtures() {}

  /** Where the fixtures lie; tests run in the module's folder. */
  public static Path folder() {
    return Path.of("src/test/resources/text");
  }

  /** The folder of the small byte-level BPE tokenizer. */
  public static Path tokenizerFolder() {
    return folder().resolve("tokenizer");
  }

  public static JsonNode json(String name) {
    try {
      return new ObjectMapper().readTree(Files.readAllBytes(folder().resolve(name)));
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  public static int[] ints(JsonNode array) {
    int[] ints = new int[array.size()];
    for (int i = 0; i < ints.length; i++) {
      ints[i] = array.get(i).asInt();
    }
    return ints;
  }
}
