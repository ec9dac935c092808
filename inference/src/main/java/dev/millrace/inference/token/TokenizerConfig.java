package dev.millrace.inference.token;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashSet;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * What stands beside a checkpoint's {@code tokenizer.json}.
 *
 * @param beginOfText text of the token that begins a text, or null
 * @param endOfText text of the token that ends a text, or null
 * @param chatTemplate the template in tokenizer_config.json, or null
 */
public record TokenizerConfig(
    @Nullable String beginOfText, @Nullable String endOfText, @Nullable String chatTemplate) {

  /**
   * Reads {@code tokenizer_config.json}; all is null where there is no such file.
   *
   * @throws TokenizerException if it is there and is no JSON object
   */
  public static TokenizerConfig read(Path folder) throws TokenizerException {
    JsonNode config = object(folder.resolve("tokenizer_config.json"));
    JsonNode template = config.path("chat_template");
    if (template.isArray()) {
      // Several named templates; the default one is for chats with and without tools.
      for (JsonNode named : config.path("chat_template")) {
        if (named.path("name").asText().equals("default")) {
          template = named.path("template");
        }
      }
    }
    return new TokenizerConfig(
        token(config.path("bos_token")),
        token(config.path("eos_token")),
        template.isTextual() ? template.asText() : null);
  }

  /**
   * The tokens that end an answer: those that config.json and generation_config.json list, and the
   * ends of a turn and of a message in Llama 3's format where the vocabulary has them. The latter
   * because some checkpoints of the family list only the end of text, which no turn ends with.
   *
   * @throws TokenizerException if a file lists something that is no token id
   */
  public static int[] stopTokens(Path folder, Tokenizer tokenizer) throws TokenizerException {
    Set<Integer> ids = new LinkedHashSet<>();
    for (String name : new String[] {"config.json", "generation_config.json"}) {
      Path file = folder.resolve(name);
      JsonNode eos = object(file).path("eos_token_id");
      for (JsonNode id : eos.isArray() ? eos : new ObjectMapper().createArrayNode().add(eos)) {
        if (id.isMissingNode() || id.isNull()) {
          continue;
        }
        if (!id.isInt() || id.asInt() < 0) {
          throw new TokenizerException(file + ": eos_token_id holds " + id + ", no token id");
        }
        ids.add(id.asInt());
      }
    }
    String endOfText = read(folder).endOfText();
    for (String end : new String[] {endOfText, "<|eot_id|>", "<|eom_id|>"}) {
      if (end != null) {
        tokenizer.special(end).ifPresent(ids::add);
      }
    }
    return ids.stream().mapToInt(Integer::intValue).toArray();
  }

  private static @Nullable String token(JsonNode token) {
    JsonNode text = token.isObject() ? token.path("content") : token;
    return text.isTextual() && !text.asText().isEmpty() ? text.asText() : null;
  }

  private static JsonNode object(Path file) throws TokenizerException {
    ObjectMapper mapper = new ObjectMapper();
    if (!Files.exists(file)) {
      return mapper.createObjectNode();
    }
    try {
      JsonNode json = mapper.readTree(Files.readAllBytes(file));
      if (!json.isObject()) {
        throw new TokenizerException(file + ": not a JSON object");
      }
      return json;
    } catch (TokenizerException e) {
      throw e;
    } catch (IOException e) {
      throw new TokenizerException(file + ": " + e.getMessage(), e);
    }
  }
}
