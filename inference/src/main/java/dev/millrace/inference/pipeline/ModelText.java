package dev.millrace.inference.pipeline;

import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.chat.ChatTemplate;
import dev.millrace.inference.token.HfTokenizer;
import dev.millrace.inference.token.Tokenizer;
import dev.millrace.inference.token.TokenizerConfig;
import dev.millrace.inference.tool.ToolCallParser.Dialect;
import java.io.IOException;
import java.nio.file.Path;
import org.jspecify.annotations.Nullable;

/**
 * What a checkpoint says about text. Whoever opens it closes it. Thread-safe.
 *
 * @param template null if the model takes no conversations
 * @param dialect how the model writes tool calls
 * @param stopTokens ids that end an answer
 * @param sampling what requests should use where their sender leaves it open
 */
record ModelText(
    Tokenizer tokenizer,
    @Nullable ChatTemplate template,
    Dialect dialect,
    int[] stopTokens,
    SamplingParams sampling)
    implements AutoCloseable {

  /** A model that says nothing about sampling: greedy. */
  ModelText(
      Tokenizer tokenizer, @Nullable ChatTemplate template, Dialect dialect, int[] stopTokens) {
    this(tokenizer, template, dialect, stopTokens, SamplingParams.greedy(1));
  }

  /**
   * Reads tokenizer, template and stop tokens of a checkpoint folder.
   *
   * @param chatTemplate another template than the checkpoint's own, or null
   * @throws IOException if a file is missing or broken; the message names it and says why
   */
  static ModelText open(Path folder, @Nullable Path chatTemplate) throws IOException {
    HfTokenizer tokenizer = HfTokenizer.open(folder);
    try {
      ChatTemplate template = ChatTemplate.open(folder, tokenizer.marks(), chatTemplate);
      return new ModelText(
          tokenizer,
          template,
          template == null ? Dialect.NEMOTRON : Dialect.of(template.source()),
          TokenizerConfig.stopTokens(folder, tokenizer),
          GenerationDefaults.read(folder));
    } catch (IOException | RuntimeException e) {
      tokenizer.close();
      throw e;
    }
  }

  @Override
  public void close() {
    tokenizer.close();
  }
}
