package dev.millrace.topology;

import dev.millrace.inference.api.FinishReason;
import dev.millrace.inference.api.GenerateEvent;
import dev.millrace.inference.api.GenerateEvent.Delta;
import dev.millrace.inference.api.GenerateEvent.Done;
import dev.millrace.inference.api.GenerateEvent.Failed;
import dev.millrace.inference.api.GenerateEvent.Failure;
import dev.millrace.inference.api.GenerateEvent.Timings;
import dev.millrace.inference.api.GenerateEvent.ToolCall;
import dev.millrace.inference.api.GenerateEvent.Usage;
import dev.millrace.inference.api.GenerateRequest;
import dev.millrace.inference.api.Generator;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/** A generator that does what a test tells it, when it tells it. */
final class ScriptedGenerator implements Generator {
  static final String MODEL = "scripted";

  final List<Submission> submissions = new ArrayList<>();
  @Nullable String failure;
  @Nullable RuntimeException thrown;

  /** Called in the middle of a turn of the stream thread. */
  @Nullable Runnable onStatus;

  /** A request that came, and how to answer it. */
  static final class Submission implements Generation {
    final GenerateRequest request;
    private final Consumer<GenerateEvent> listener;
    boolean cancelled;
    int allowed;

    Submission(GenerateRequest request, Consumer<GenerateEvent> listener) {
      this.request = request;
      this.listener = listener;
      this.allowed = request.scheduling().allowed();
    }

    @Override
    public void cancel() {
      cancelled = true;
    }

    @Override
    public void allow(int tokens) {
      allowed = Math.max(allowed, tokens);
    }

    void delta(String content, int... tokens) {
      listener.accept(new Delta(content, "", tokens));
    }

    void done(String content, ToolCall... calls) {
      done(FinishReason.STOP, content, calls);
    }

    void done(FinishReason finish, String content, ToolCall... calls) {
      listener.accept(
          new Done(
              finish,
              content,
              "because",
              List.of(calls),
              new Usage(7, 3, 5, 2, 0),
              new Timings(1_000_000, 2_000_000, 9_000_000),
              List.of()));
    }

    void failed(Failure failure, String message) {
      listener.accept(new Failed(failure, message));
    }
  }

  Submission last() {
    return submissions.getLast();
  }

  @Override
  public String model() {
    return MODEL;
  }

  @Override
  public Generation submit(GenerateRequest request, Consumer<GenerateEvent> listener) {
    if (thrown != null) {
      throw thrown;
    }
    Submission submission = new Submission(request, listener);
    submissions.add(submission);
    return submission;
  }

  @Override
  public Status status() {
    if (onStatus != null) {
      onStatus.run();
    }
    return new Status(0, 0, 0, 0, 0, 0, null, 0, failure);
  }

  @Override
  public void close() {}
}
