package dev.millrace.topology.cli;

import dev.millrace.schemas.CompletionEvent;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * Counts that nothing is lost: every prompt that was sent has exactly one end, a completion or a
 * dead letter. Not thread-safe.
 */
public final class Ledger {
  private final Set<String> sent = new LinkedHashSet<>();
  private final Map<String, CompletionEvent> completions = new LinkedHashMap<>();
  private final Map<String, EventClient.Outcome.DeadLetter> deadLetters = new LinkedHashMap<>();
  private int duplicates;
  private int contradictions;
  private int strangers;

  /** A prompt is on its way. */
  public void sent(String id) {
    if (!sent.add(id)) {
      throw new IllegalArgumentException("the prompt " + id + " was sent before");
    }
  }

  /**
   * Enters what a worker wrote; chunks and calls are no ends and change nothing.
   *
   * @return whether it is the first end of a prompt that was sent
   */
  public boolean enter(EventClient.Outcome outcome) {
    return switch (outcome) {
      case EventClient.Outcome.Completion completion -> completion(completion.event());
      case EventClient.Outcome.DeadLetter dead -> deadLetter(dead);
      case EventClient.Outcome.ToolCall call -> false;
      case EventClient.Outcome.Chunk chunk -> false;
    };
  }

  private boolean completion(CompletionEvent event) {
    String id = event.getPromptId();
    if (!isNew(id)) {
      CompletionEvent first = completions.get(id);
      if (first != null && !sameAnswer(first, event)) {
        contradictions++;
      }
      return false;
    }
    completions.put(id, event);
    return true;
  }

  private boolean deadLetter(EventClient.Outcome.DeadLetter dead) {
    if (!isNew(dead.key())) {
      if (completions.containsKey(dead.key())) {
        contradictions++;
      }
      return false;
    }
    deadLetters.put(dead.key(), dead);
    return true;
  }

  private boolean isNew(String id) {
    if (!sent.contains(id)) {
      strangers++;
      return false;
    }
    if (completions.containsKey(id) || deadLetters.containsKey(id)) {
      duplicates++;
      return false;
    }
    return true;
  }

  /** Whether two completions say the same; counts and times may differ. */
  public static boolean sameAnswer(CompletionEvent a, CompletionEvent b) {
    return a.getContent().equals(b.getContent())
        && a.getReasoning().equals(b.getReasoning())
        && a.getToolCalls().equals(b.getToolCalls())
        && a.getFinishReason() == b.getFinishReason();
  }

  /** Whether every prompt has its end. */
  public boolean settled() {
    return completions.size() + deadLetters.size() == sent.size();
  }

  /** Prompts that were sent and have no end. */
  public List<String> open() {
    return sent.stream()
        .filter(id -> !completions.containsKey(id) && !deadLetters.containsKey(id))
        .toList();
  }

  public int sent() {
    return sent.size();
  }

  /** The first completion of each prompt that has one, by its id, in the order of arrival. */
  public Map<String, CompletionEvent> completions() {
    return completions;
  }

  /** The first dead letter of each prompt that ended so, by its key. */
  public Map<String, EventClient.Outcome.DeadLetter> deadLetters() {
    return deadLetters;
  }

  /** Ends beyond the first. */
  public int duplicates() {
    return duplicates;
  }

  /** Duplicates that do not say what the first end said. */
  public int contradictions() {
    return contradictions;
  }

  /** Ends of prompts that were never sent. */
  public int strangers() {
    return strangers;
  }

  @Override
  public String toString() {
    return sent.size()
        + " sent, "
        + completions.size()
        + " completions, "
        + deadLetters.size()
        + " dead letters, "
        + open().size()
        + " lost, "
        + duplicates
        + " duplicates, "
        + contradictions
        + " contradictions";
  }
}
