package dev.millrace.inference.sampling;

import dev.millrace.inference.api.SamplingParams;
import java.util.Arrays;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * What the sampler knows of one sequence: its parameters, and the tokens so far. The engine thread
 * makes it when a sequence is admitted; from then on the runner's thread alone appends what it
 * samples, so that a step planned before its predecessor ended still sees every token. A runner may
 * leave out tokens that no later draw depends on, as a GPU's does where there are no penalties:
 * then the tokens here are those that it began with, and the runner goes by a batch's positions.
 */
public final class SamplingState {
  private final SamplingParams params;
  private final int[] prompt;
  private final int[] stopTokens;
  private int[] output;
  private int outputLength;
  private @Nullable TokenCounts counts;

  /**
   * @param prompt the prompt's tokens, without resumed ones; not copied
   * @param generated tokens generated before (resumed); they count as output
   * @param stopTokens ids that end a sequence: not drawn before minTokens were generated
   */
  public SamplingState(SamplingParams params, int[] prompt, int[] generated, int[] stopTokens) {
    this.params = params;
    this.prompt = prompt;
    this.stopTokens = stopTokens;
    this.output = Arrays.copyOf(generated, generated.length + 16);
    this.outputLength = generated.length;
  }

  public SamplingParams params() {
    return params;
  }

  /** Position of the token that follows those that are here. */
  public int position() {
    return prompt.length + outputLength;
  }

  public int promptLength() {
    return prompt.length;
  }

  /** Tokens of output that are here, resumed ones included. */
  public int generated() {
    return outputLength;
  }

  public int token(int position) {
    Objects.checkIndex(position, position());
    return position < prompt.length ? prompt[position] : output[position - prompt.length];
  }

  /**
   * Called by the runner's thread with each token it sampled, if later draws depend on it; {@link
   * Sampler#FAILED} is dropped.
   */
  public void append(int token) {
    if (token < 0) {
      return;
    }
    if (outputLength == output.length) {
      output = Arrays.copyOf(output, outputLength + (outputLength >> 1));
    }
    output[outputLength++] = token;
    if (counts != null) {
      counts.add(token, 1);
    }
  }

  int[] stopTokens() {
    return stopTokens;
  }

  /** Whether stop tokens may not be drawn yet. */
  boolean masksStopTokens() {
    return outputLength < params.minTokens() && stopTokens.length > 0;
  }

  /**
   * Tokens that may not be drawn at a position.
   *
   * @param position at least the prompt's length
   */
  public int[] masked(int position) {
    return position - prompt.length < params.minTokens() ? stopTokens.clone() : new int[0];
  }

  /** How often each token occurs in the output, with those of the prompt at 0 or more. */
  public TokenCounts counts() {
    TokenCounts result = counts;
    if (result == null) {
      // Only sequences with penalties pay for this, once, on the runner's thread.
      result = new TokenCounts(prompt.length + outputLength);
      for (int token : prompt) {
        result.add(token, 0);
      }
      for (int i = 0; i < outputLength; i++) {
        result.add(output[i], 1);
      }
      counts = result;
    }
    return result;
  }
}
