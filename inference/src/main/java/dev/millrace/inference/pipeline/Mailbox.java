package dev.millrace.inference.pipeline;

import dev.millrace.inference.api.FinishReason;
import dev.millrace.inference.api.GenerateEvent.Failure;
import dev.millrace.inference.api.TokenLogprob;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * What the engine has said of one sequence and nobody has taken yet; at most what one answer can
 * hold. The putting methods return true if the taker must be woken: once for all that comes until
 * it takes. Thread-safe.
 */
final class Mailbox {
  private static final int[] NO_TOKENS = {};

  private int[] tokens = new int[8];
  private int size;
  private List<@Nullable TokenLogprob> logprobs = new ArrayList<>(0);
  private int cachedTokens;
  private long startedAt;
  private long firstTokenAt;
  private @Nullable FinishReason finish;
  private @Nullable Failure failure;
  private String message = "";
  private boolean woken;

  /**
   * All that had come.
   *
   * @param logprobs one a token, or empty if there are none
   * @param startedAt {@link System#nanoTime()}, or 0 if it was told before or not yet
   * @param firstTokenAt the same
   */
  record Mail(
      int[] tokens,
      List<@Nullable TokenLogprob> logprobs,
      int cachedTokens,
      long startedAt,
      long firstTokenAt,
      @Nullable FinishReason finish,
      @Nullable Failure failure,
      String message) {}

  synchronized boolean started(int cached) {
    cachedTokens = cached;
    startedAt = System.nanoTime();
    // Nothing to tell anyone yet.
    return false;
  }

  synchronized boolean token(int token, @Nullable TokenLogprob logprob) {
    if (firstTokenAt == 0) {
      firstTokenAt = System.nanoTime();
    }
    if (size == tokens.length) {
      tokens = Arrays.copyOf(tokens, size * 2);
    }
    tokens[size++] = token;
    if (logprob != null || !logprobs.isEmpty()) {
      while (logprobs.size() < size - 1) {
        logprobs.add(null);
      }
      logprobs.add(logprob);
    }
    return wake();
  }

  synchronized boolean finished(FinishReason reason) {
    finish = reason;
    return wake();
  }

  synchronized boolean failed(Failure reason, String why) {
    failure = reason;
    message = why;
    return wake();
  }

  private boolean wake() {
    boolean wake = !woken;
    woken = true;
    return wake;
  }

  synchronized Mail take() {
    int[] taken = size == 0 ? NO_TOKENS : Arrays.copyOf(tokens, size);
    Mail mail =
        new Mail(taken, logprobs, cachedTokens, startedAt, firstTokenAt, finish, failure, message);
    size = 0;
    logprobs = new ArrayList<>(0);
    woken = false;
    return mail;
  }
}
