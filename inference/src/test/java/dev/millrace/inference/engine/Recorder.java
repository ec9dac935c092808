package dev.millrace.inference.engine;

import dev.millrace.inference.api.FinishReason;
import dev.millrace.inference.api.GenerateEvent;
import dev.millrace.inference.api.TokenLogprob;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import org.jspecify.annotations.Nullable;

/** Keeps what a listener hears and checks its order. */
class Recorder implements TokenListener {
  final List<Integer> tokens = new ArrayList<>();
  final CompletableFuture<String> end = new CompletableFuture<>();
  volatile int cached = -1;
  String message = "";

  @Override
  public void onStarted(int cachedTokens) {
    verify(cached == -1 && tokens.isEmpty() && !end.isDone(), "onStarted");
    cached = cachedTokens;
  }

  @Override
  public void onToken(int token, @Nullable TokenLogprob logprob) {
    verify(cached >= 0 && !end.isDone(), "onToken");
    tokens.add(token);
  }

  @Override
  public void onFinished(FinishReason reason) {
    verify(end.complete(reason.name()), "onFinished");
  }

  @Override
  public void onFailed(GenerateEvent.Failure failure, String text) {
    message = text;
    verify(end.complete("failed " + failure), "onFailed");
  }

  /** Null while it goes on. */
  @Nullable String outcome() {
    return end.getNow(null);
  }

  private void verify(boolean holds, String call) {
    if (!holds) {
      broken = call + " out of order";
    }
  }

  /** What throws in a listener is dropped, so it is kept for the test. */
  volatile @Nullable String broken;
}
