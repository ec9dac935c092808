package dev.millrace.inference.bench;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.file.Path;

/**
 * A tokenizer for a shape that there is no checkpoint of: every byte, then made-up words up to the
 * size of the vocabulary, so that making text of tokens costs what it costs with a real one.
 */
public final class MadeUpTokenizer {
  private static final int BYTES = 256;

  private MadeUpTokenizer() {}

  /** Writes {@code tokenizer.json} into a folder. */
  public static void write(Path folder, int vocabSize) throws IOException {
    ObjectMapper mapper = new ObjectMapper();
    ObjectNode root = mapper.createObjectNode();
    root.put("version", "1.0");
    root.putArray("added_tokens");
    byteLevel(root.putObject("pre_tokenizer"));
    byteLevel(root.putObject("decoder"));
    ObjectNode model = root.putObject("model");
    model.put("type", "BPE");
    ObjectNode vocab = model.putObject("vocab");
    int standIn = BYTES;
    for (int id = 0; id < vocabSize; id++) {
      // The byte-level alphabet: bytes that do not print in Latin-1 take U+0100 upwards.
      boolean prints = id >= '!' && id <= '~' || id >= 0xA1 && id != 0xAD;
      vocab.put(
          id < BYTES ? String.valueOf((char) (prints ? id : standIn++)) : word(id - BYTES), id);
    }
    model.putArray("merges");
    mapper.writeValue(folder.resolve("tokenizer.json").toFile(), root);
  }

  private static void byteLevel(ObjectNode node) {
    node.put("type", "ByteLevel");
    node.put("add_prefix_space", false);
    node.put("trim_offsets", true);
    node.put("use_regex", true);
  }

  /** A word that begins with a space (U+0120) and is no other number's. */
  private static String word(int number) {
    StringBuilder word = new StringBuilder();
    for (int rest = number; rest >= 0; rest = rest / 26 - 1) {
      word.insert(0, (char) ('a' + rest % 26));
    }
    return word.insert(0, '\u0120').toString();
  }
}
