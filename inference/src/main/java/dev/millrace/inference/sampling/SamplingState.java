package dev.millrace.inference.sampling;

import dev.millrace.inference.api.SamplingParams;

/**
 * What the sampler knows of one sequence: its parameters, and the tokens so far. The engine thread
 * makes it when a sequence is admitted; from then on the runner's thread alone appends what it
 * samples, so that a step planned before its predecessor ended still sees every token.
 */
public final class SamplingState {
  private final SamplingParams params;
  private final int[] stopTokens;
  private final int promptLength;
  private int[] tokens;
  private int length;

  /**
   * @param prompt the prompt's tokens, without resumed ones
   * @param generated tokens generated before (resumed); they count as output
   * @param stopTokens ids that end a sequence: not drawn before minTokens were generated
   */
  public SamplingState(SamplingParams params, int[] prompt, int[] generated, int[] stopTokens) {
    this.params = params;
    this.stopTokens = stopTokens;
    this.promptLength = prompt.length;
    this.length = prompt.length + generated.length;
    this.tokens = java.util.Arrays.copyOf(prompt, Math.max(16, length + 64));
    System.arraycopy(generated, 0, tokens, prompt.length, generated.length);
  }

  public SamplingParams params() {
    return params;
  }

  /** Position in the sequence of the token to be drawn next. */
  public int position() {
    return length;
  }

  public int promptLength() {
    return promptLength;
  }

  public int generated() {
    return length - promptLength;
  }

  public int token(int position) {
    return tokens[java.util.Objects.checkIndex(position, length)];
  }

  int[] stopTokens() {
    return stopTokens;
  }

  /**
   * Called by the runner's thread with each token it sampled; {@link Sampler#FAILED} is dropped.
   */
  public void append(int token) {
    if (token < 0) {
      return;
    }
    if (length == tokens.length) {
      tokens = java.util.Arrays.copyOf(tokens, length + (length >> 1));
    }
    tokens[length++] = token;
  }
}
