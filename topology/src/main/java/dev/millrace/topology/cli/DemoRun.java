package dev.millrace.topology.cli;

import dev.millrace.schemas.CompletionEvent;
import dev.millrace.schemas.MessageRole;
import dev.millrace.schemas.PromptEvent;
import dev.millrace.schemas.PromptMessage;
import dev.millrace.topology.WorkerConfig;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.UUID;
import java.util.concurrent.ExecutionException;

/** Sends prompts to a worker, shows what comes back, and sums it up. */
final class DemoRun {
  private static final int PROMPT_WIDTH = 90;

  private final WorkerConfig config;
  private final Screen screen;
  private final Duration patience;
  private final Ledger ledger = new Ledger();
  private final Map<String, PromptsFile.Entry> entries = new HashMap<>();
  private int known;
  private int right;
  private int calls;

  /**
   * @param patience how long to wait for the next answer
   */
  DemoRun(WorkerConfig config, Screen screen, Duration patience) {
    this.config = config;
    this.screen = screen;
    this.patience = patience;
  }

  /**
   * Sends all prompts at once and waits for their ends.
   *
   * @return whether each has a completion
   */
  boolean send(List<PromptsFile.Entry> prompts) throws InterruptedException {
    // Ids of their own for each run: a worker that has seen an id does not answer it again.
    String run = UUID.randomUUID().toString().substring(0, 8) + "/";
    try (EventClient client = new EventClient(config)) {
      screen.line("Sending %d prompts to %s", prompts.size(), config.topics().prompts());
      long start = System.nanoTime();
      for (PromptsFile.Entry entry : prompts) {
        PromptEvent prompt =
            PromptEvent.newBuilder(entry.prompt()).setId(run + entry.prompt().getId()).build();
        entries.put(prompt.getId(), entry);
        ledger.sent(prompt.getId());
        client.send(prompt).get();
      }
      long last = System.nanoTime();
      while (!ledger.settled() && System.nanoTime() - last < patience.toNanos()) {
        for (EventClient.Outcome outcome : client.poll(Duration.ofMillis(200))) {
          show(outcome);
          last = System.nanoTime();
        }
      }
      // What is sent twice comes soon after.
      client.poll(Duration.ofMillis(200)).forEach(this::show);
      return summary((last - start) / 1e9);
    } catch (ExecutionException e) {
      throw new Failures.CommandFailedException(
          "cannot send a prompt: " + Failures.describe(e.getCause()), e);
    }
  }

  private void show(EventClient.Outcome outcome) {
    if (outcome instanceof EventClient.Outcome.ToolCall) {
      calls++;
      return;
    }
    if (!ledger.enter(outcome)) {
      return;
    }
    int ended = ledger.completions().size() + ledger.deadLetters().size();
    switch (outcome) {
      case EventClient.Outcome.Completion(CompletionEvent event, var source) -> {
        PromptsFile.Entry entry = Objects.requireNonNull(entries.get(event.getPromptId()));
        screen.line("%n[%d/%d] %s", ended, ledger.sent(), question(entry));
        screen.answer(event);
        verdict(entry, event);
      }
      case EventClient.Outcome.DeadLetter(String key, String reason, var source) -> {
        PromptsFile.Entry entry = Objects.requireNonNull(entries.get(key));
        screen.line("%n[%d/%d] %s", ended, ledger.sent(), question(entry));
        screen.line("      failed  %s", reason);
      }
      case EventClient.Outcome.ToolCall call -> {}
      case EventClient.Outcome.Chunk chunk -> {}
    }
  }

  private void verdict(PromptsFile.Entry entry, CompletionEvent event) {
    if (entry.expected() == null) {
      return;
    }
    known++;
    if (entry.expected().matches(event)) {
      right++;
      screen.line("      right");
    } else {
      screen.line("      wrong   expected %s", entry.expected());
    }
  }

  private boolean summary(double seconds) {
    long tokens = 0;
    long read = 0;
    for (CompletionEvent event : ledger.completions().values()) {
      tokens += event.getUsage().getCompletion();
      read += event.getUsage().getPrompt();
    }
    int failed = ledger.deadLetters().size();
    int lost = ledger.open().size();
    screen.line("%n%d prompts in %.1f s", ledger.sent(), seconds);
    screen.line(
        "  tokens      %d read, %d written, %.0f a second written",
        read, tokens, tokens / Math.max(seconds, 1e-3));
    screen.line("  tool calls  %d", calls);
    screen.line("  right       %d of the %d whose answer is known", right, known);
    screen.line("  failed      %d", failed);
    screen.line("  lost        %d", lost);
    for (String id : ledger.open()) {
      screen.line("              %s", question(Objects.requireNonNull(entries.get(id))));
    }
    return failed == 0 && lost == 0;
  }

  private static String question(PromptsFile.Entry entry) {
    String text = "";
    for (PromptMessage message : entry.prompt().getMessages()) {
      if (message.getRole() == MessageRole.USER) {
        text = message.getContent();
      }
    }
    String task = entry.task().isEmpty() ? "" : entry.task() + ": ";
    return task + Screen.shorten(text, PROMPT_WIDTH);
  }
}
