package dev.millrace.topology;

import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.Set;
import java.util.UUID;

/**
 * Prompts under suspicion of having brought a worker down. A kill is not a prompt's fault, so being
 * there at one crash means nothing. At the second, with no progress in between, a prompt becomes a
 * suspect: it runs alone, one suspect at a time in a worker, until it is past the point where it
 * stood; only a crash in that time counts against it. Tokens are a function of the sequence alone,
 * so what crashed the worker once would do so again at the same token: a prompt that got further
 * has cleared itself.
 *
 * <p>Suspects come before all others: while there are any, the engine gets nothing else, so that
 * what crashes the worker then was not somebody else, and nobody else is counted in. Those that
 * were there at one crash go to the engine a few at a time, each until it is past the point, so
 * that a second crash makes suspects of a few and not of a whole window.
 *
 * <p>Shared by all tasks of a worker; safe for several threads.
 */
final class Quarantine {
  /** Crashes at one point after which a prompt runs alone. */
  static final int SUSPECT = 2;

  /** Prompts that were there at a crash and are not past it, which the engine may have at once. */
  static final int WATCHED = 32;

  private final UUID worker = UUID.randomUUID();

  /** In the order in which they came; the first has its turn. */
  private final Set<InFlightPrompt> suspects = new LinkedHashSet<>();

  private final Set<InFlightPrompt> watched = new HashSet<>();

  /** Tells this process from every other that may have owned a task. */
  UUID worker() {
    return worker;
  }

  /** Whether the engine may have a prompt now; a suspect that may not is queued for its turn. */
  synchronized boolean enter(InFlightPrompt prompt) {
    if (prompt.crashes >= SUSPECT) {
      suspects.add(prompt);
      return suspects.iterator().next() == prompt;
    }
    if (!suspects.isEmpty()) {
      return false;
    }
    return prompt.crashes == 0
        || watched.contains(prompt)
        || (watched.size() < WATCHED && watched.add(prompt));
  }

  /** A prompt is under no suspicion, or the engine has it no more; nothing happens otherwise. */
  synchronized void leave(InFlightPrompt prompt) {
    // Nearly always there are none: then it needs no hash code, which costs more than all else
    // here.
    if (!suspects.isEmpty() || !watched.isEmpty()) {
      suspects.remove(prompt);
      watched.remove(prompt);
    }
  }
}
