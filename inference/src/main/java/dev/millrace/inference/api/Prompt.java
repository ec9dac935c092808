package dev.millrace.inference.api;

import java.util.List;

/** What to continue: a conversation, a raw text, or tokens. */
public sealed interface Prompt {
  /** Rendered by the model's chat template. */
  record Chat(List<Message> messages) implements Prompt {
    public Chat {
      messages = List.copyOf(messages);
    }
  }

  /** Encoded as it is, after the model's begin-of-text token; special tokens in it stay text. */
  record Text(String text) implements Prompt {}

  /** Taken as they are; each must be a token of the vocabulary. */
  record Tokens(int[] ids) implements Prompt {}
}
