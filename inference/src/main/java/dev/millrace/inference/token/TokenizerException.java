package dev.millrace.inference.token;

import java.io.IOException;

/** A tokenizer's files cannot be used; the message names the file and what is wrong with it. */
public final class TokenizerException extends IOException {
  private static final long serialVersionUID = 1L;

  public TokenizerException(String message) {
    super(message);
  }

  public TokenizerException(String message, Throwable cause) {
    super(message, cause);
  }
}
