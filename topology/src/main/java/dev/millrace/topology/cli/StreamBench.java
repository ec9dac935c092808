package dev.millrace.topology.cli;

import dev.millrace.inference.bench.Load;
import dev.millrace.inference.bench.Samples;
import dev.millrace.schemas.CompletionEvent;
import dev.millrace.schemas.PromptEvent;
import dev.millrace.schemas.PromptSampling;
import dev.millrace.topology.WorkerConfig;
import java.time.Duration;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.jspecify.annotations.Nullable;

/** Sends a {@link Load} to a worker as prompts of tokens, and waits for the answers. */
final class StreamBench {
  private static final Duration PATIENCE = Duration.ofMinutes(10);

  private final WorkerConfig config;
  private final int vocabSize;

  StreamBench(WorkerConfig config, int vocabSize) {
    this.config = config;
    this.vocabSize = vocabSize;
  }

  /**
   * What came of it.
   *
   * @param seconds from the first prompt's sending to the last completion's arrival
   * @param prompt from a prompt's sending to its completion's arrival
   */
  record Result(double seconds, long outputTokens, Samples.Summary prompt) {
    double outputPerSecond() {
      return outputTokens / seconds;
    }
  }

  /**
   * Sends all and waits for all.
   *
   * @param run keeps the ids of one run apart from those of another
   * @throws Failures.CommandFailedException if one is not answered
   */
  Result run(Load load, String run) throws InterruptedException {
    PromptEvent[] prompts = new PromptEvent[load.requests()];
    for (int i = 0; i < prompts.length; i++) {
      prompts[i] = prompt(load, run + i, i);
    }
    Map<String, Long> open = new HashMap<>();
    Samples times = new Samples(prompts.length);
    long tokens = 0;
    try (EventClient client = new EventClient(config)) {
      long start = System.nanoTime();
      long last = start;
      @Nullable Future<?> sent = null;
      for (int next = 0; next < prompts.length || !open.isEmpty(); ) {
        while (next < prompts.length && open.size() < load.atOnce()) {
          open.put(prompts[next].getId(), System.nanoTime());
          sent = client.send(prompts[next++]);
        }
        for (EventClient.Outcome outcome : client.poll(Duration.ofMillis(100))) {
          CompletionEvent answer = completion(outcome);
          Long begin = open.remove(answer.getPromptId());
          if (begin != null) {
            last = System.nanoTime();
            times.add(last - begin);
            tokens += answer.getUsage().getCompletion();
          }
        }
        if (System.nanoTime() - last > PATIENCE.toNanos()) {
          throw new Failures.CommandFailedException(
              "no completion for %d minutes; %d prompts are open"
                  .formatted(PATIENCE.toMinutes(), open.size()));
        }
      }
      if (sent != null) {
        sent.get();
      }
      return new Result((last - start) / 1e9, tokens, times.summary());
    } catch (ExecutionException e) {
      throw new Failures.CommandFailedException(
          "cannot send a prompt: " + Failures.describe(e.getCause()), e);
    }
  }

  private static CompletionEvent completion(EventClient.Outcome outcome) {
    return switch (outcome) {
      case EventClient.Outcome.Completion completion -> completion.event();
      case EventClient.Outcome.DeadLetter dead ->
          throw new Failures.CommandFailedException(
              "a prompt of the benchmark became a dead letter: " + dead.reason());
      case EventClient.Outcome.ToolCall call ->
          throw new Failures.CommandFailedException("a prompt of the benchmark called a tool");
      case EventClient.Outcome.Chunk chunk ->
          throw new Failures.CommandFailedException("a prompt of the benchmark was streamed");
    };
  }

  private PromptEvent prompt(Load load, String id, int index) {
    return PromptEvent.newBuilder()
        .setId(id)
        .setPromptTokens(Arrays.stream(load.prompt(index, vocabSize)).boxed().toList())
        .setSampling(
            PromptSampling.newBuilder()
                .setTemperature(0.0)
                .setSeed(load.seed())
                .setMaxTokens(load.outputTokens())
                .setMinTokens(load.outputTokens())
                .setIgnoreEos(true)
                .build())
        .build();
  }
}
