package dev.millrace.inference.token;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import java.io.IOException;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * What a {@code tokenizer.json} (the format of Hugging Face's tokenizers library) says, as far as
 * it is needed outside of the library. Byte-level BPE only: each token is a string over 256
 * printable characters that stand for bytes.
 *
 * @param bytes [vocabulary] what each token adds to a text; empty for specials and gaps
 * @param specials special tokens in the order of the file
 * @param withoutSpecials the file's JSON less its special tokens, padding, cutting off and
 *     post-processing
 */
record TokenizerJson(byte[][] bytes, List<Special> specials, String withoutSpecials) {
  /** Ids above this are taken for a broken file rather than for a vocabulary. */
  private static final int MOST_TOKENS = 1 << 24;

  private static final Set<String> LEFT_OUT = Set.of("truncation", "padding", "post_processor");

  /**
   * @param takesLeft white space before it belongs to it
   * @param takesRight white space after it belongs to it
   */
  record Special(int id, String content, boolean takesLeft, boolean takesRight) {}

  static TokenizerJson read(Path file) throws TokenizerException {
    // Vocabularies are one object of hundreds of thousands of names, longer than the defaults
    // allow.
    JsonFactory json =
        JsonFactory.builder()
            .streamReadConstraints(StreamReadConstraints.builder().maxStringLength(1 << 26).build())
            .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
            .build();
    ObjectMapper mapper = new ObjectMapper(json);
    StringWriter copy = new StringWriter();
    Map<String, Integer> vocabulary = new HashMap<>();
    JsonNode added = mapper.createArrayNode();
    JsonNode decoder = mapper.nullNode();
    String type = "missing";
    try (JsonParser in = json.createParser(Files.readAllBytes(file));
        JsonGenerator out = json.createGenerator(copy)) {
      if (in.nextToken() != JsonToken.START_OBJECT) {
        throw new TokenizerException(file + ": not a JSON object");
      }
      out.writeStartObject();
      while (in.nextToken() == JsonToken.FIELD_NAME) {
        String name = in.currentName();
        in.nextToken();
        if (name.equals("added_tokens")) {
          added = mapper.readTree(in);
        } else if (name.equals("decoder")) {
          decoder = mapper.readTree(in);
          out.writeFieldName(name);
          mapper.writeTree(out, decoder);
        } else if (name.equals("model")) {
          out.writeFieldName(name);
          type = copyModel(in, out, vocabulary);
        } else if (LEFT_OUT.contains(name)) {
          in.skipChildren();
        } else {
          out.writeFieldName(name);
          out.copyCurrentStructure(in);
        }
      }
      if (in.nextToken() != null) {
        throw new TokenizerException(file + ": text after the end of the JSON object");
      }
      if (!type.equals("BPE")) {
        throw new TokenizerException(
            file + ": model type is " + type + ", only byte-level BPE is supported");
      }
      if (!hasByteLevel(decoder)) {
        throw new TokenizerException(
            file + ": its decoder is not ByteLevel, only byte-level BPE is supported");
      }
      out.writeFieldName("added_tokens");
      List<Special> specials = copyAdded(file, added, vocabulary, mapper, out);
      out.writeEndObject();
      out.flush();
      return new TokenizerJson(bytes(file, vocabulary, specials), specials, copy.toString());
    } catch (TokenizerException e) {
      throw e;
    } catch (NoSuchFileException e) {
      throw new TokenizerException(file + ": there is no such file", e);
    } catch (IOException e) {
      throw new TokenizerException(file + ": " + e.getMessage(), e);
    }
  }

  /** Copies the model and notes its vocabulary on the way; returns the model's type. */
  private static String copyModel(JsonParser in, JsonGenerator out, Map<String, Integer> vocabulary)
      throws IOException {
    if (in.currentToken() != JsonToken.START_OBJECT) {
      out.copyCurrentStructure(in);
      return "no object";
    }
    // Files of old have no type here; they are BPE if they have merges.
    String type = "missing";
    out.writeStartObject();
    while (in.nextToken() == JsonToken.FIELD_NAME) {
      String name = in.currentName();
      out.writeFieldName(name);
      JsonToken value = in.nextToken();
      if (name.equals("vocab") && value == JsonToken.START_OBJECT) {
        out.writeStartObject();
        while (in.nextToken() == JsonToken.FIELD_NAME) {
          String token = in.currentName();
          in.nextToken();
          int id = in.getIntValue();
          vocabulary.put(token, id);
          out.writeNumberField(token, id);
        }
        out.writeEndObject();
        continue;
      }
      if (name.equals("type") && value == JsonToken.VALUE_STRING) {
        type = in.getText();
      } else if (name.equals("merges") && type.equals("missing")) {
        type = "BPE";
      }
      out.copyCurrentStructure(in);
    }
    out.writeEndObject();
    return type;
  }

  private static boolean hasByteLevel(JsonNode decoder) {
    if (decoder.path("type").asText().equals("ByteLevel")) {
      return true;
    }
    for (JsonNode part : decoder.path("decoders")) {
      if (hasByteLevel(part)) {
        return true;
      }
    }
    return false;
  }

  /** Writes the added tokens that are not special, notes all, and returns the special ones. */
  private static List<Special> copyAdded(
      Path file,
      JsonNode added,
      Map<String, Integer> vocabulary,
      ObjectMapper mapper,
      JsonGenerator out)
      throws IOException {
    ArrayNode kept = mapper.createArrayNode();
    List<Special> specials = new ArrayList<>();
    Set<String> names = new HashSet<>();
    for (JsonNode token : added) {
      String content = token.path("content").asText();
      int id = token.path("id").asInt(-1);
      if (content.isEmpty() || id < 0 || !names.add(content)) {
        throw new TokenizerException(
            file + ": added token without an id or content of its own: " + token);
      }
      if (token.path("special").asBoolean()) {
        specials.add(
            new Special(
                id, content, token.path("lstrip").asBoolean(), token.path("rstrip").asBoolean()));
      } else {
        kept.add(token);
        vocabulary.put(content, id);
      }
    }
    mapper.writeTree(out, kept);
    return specials;
  }

  private static byte[][] bytes(Path file, Map<String, Integer> vocabulary, List<Special> specials)
      throws TokenizerException {
    int largest = -1;
    for (Map.Entry<String, Integer> token : vocabulary.entrySet()) {
      largest = Math.max(largest, checked(file, token.getKey(), token.getValue()));
    }
    for (Special special : specials) {
      largest = Math.max(largest, checked(file, special.content(), special.id()));
    }
    byte[][] bytes = new byte[largest + 1][];
    Arrays.fill(bytes, new byte[0]);
    int[] alphabet = byteAlphabet();
    vocabulary.forEach((token, id) -> bytes[id] = bytes(token, alphabet));
    specials.forEach(special -> bytes[special.id()] = new byte[0]);
    return bytes;
  }

  private static int checked(Path file, String token, int id) throws TokenizerException {
    if (id < 0 || id >= MOST_TOKENS) {
      throw new TokenizerException(
          file + ": token " + token + " has id " + id + ", not 0 to " + (MOST_TOKENS - 1));
    }
    return id;
  }

  /** A token's bytes; one that is not written in the byte alphabet stands for its own text. */
  private static byte[] bytes(String token, int[] alphabet) {
    byte[] bytes = new byte[token.length()];
    for (int i = 0; i < token.length(); i++) {
      int b = token.charAt(i) < alphabet.length ? alphabet[token.charAt(i)] : -1;
      if (b < 0) {
        return token.getBytes(StandardCharsets.UTF_8);
      }
      bytes[i] = (byte) b;
    }
    return bytes;
  }

  /**
   * Which byte each character stands for, -1 for none. Bytes that print in Latin-1 stand for
   * themselves, the others take U+0100 upwards in order (the alphabet of GPT-2).
   */
  private static int[] byteAlphabet() {
    int[] alphabet = new int[512];
    Arrays.fill(alphabet, -1);
    int next = 256;
    for (int b = 0; b < 256; b++) {
      boolean prints = b >= '!' && b <= '~' || b >= 0xA1 && b != 0xAD;
      alphabet[prints ? b : next++] = b;
    }
    return alphabet;
  }
}
