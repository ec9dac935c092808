package dev.millrace.inference.pipeline;

import dev.millrace.inference.api.GenerateEvent;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/** Notes the events of one request and checks their order. */
final class Listener implements Consumer<GenerateEvent> {
  private final List<GenerateEvent> events = new ArrayList<>();
  private final CompletableFuture<GenerateEvent> end = new CompletableFuture<>();
  private final CompletableFuture<GenerateEvent> first = new CompletableFuture<>();

  @Override
  public synchronized void accept(GenerateEvent event) {
    if (end.isDone()) {
      end.obtrudeException(new AssertionError("an event after the end: " + event));
      return;
    }
    events.add(event);
    first.complete(event);
    if (event instanceof GenerateEvent.Done || event instanceof GenerateEvent.Failed) {
      end.complete(event);
    }
  }

  GenerateEvent first() throws Exception {
    return first.get(30, TimeUnit.SECONDS);
  }

  GenerateEvent end() throws Exception {
    return end.get(30, TimeUnit.SECONDS);
  }

  GenerateEvent.Done done() throws Exception {
    if (end() instanceof GenerateEvent.Done done) {
      return done;
    }
    throw new AssertionError("it ended with " + end());
  }

  GenerateEvent.Failed failed() throws Exception {
    if (end() instanceof GenerateEvent.Failed failed) {
      return failed;
    }
    throw new AssertionError("it ended with " + end());
  }

  synchronized String content() {
    StringBuilder text = new StringBuilder();
    deltas().forEach(d -> text.append(d.content()));
    return text.toString();
  }

  synchronized String reasoning() {
    StringBuilder text = new StringBuilder();
    deltas().forEach(d -> text.append(d.reasoning()));
    return text.toString();
  }

  synchronized int[] tokens() {
    return deltas().stream().flatMapToInt(d -> java.util.Arrays.stream(d.tokens())).toArray();
  }

  synchronized List<GenerateEvent.ToolCall> calls() {
    return events.stream()
        .filter(GenerateEvent.ToolCall.class::isInstance)
        .map(GenerateEvent.ToolCall.class::cast)
        .toList();
  }

  private List<GenerateEvent.Delta> deltas() {
    return events.stream()
        .filter(GenerateEvent.Delta.class::isInstance)
        .map(GenerateEvent.Delta.class::cast)
        .toList();
  }
}
