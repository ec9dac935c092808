package dev.millrace.topology;

import java.util.UUID;
import org.jspecify.annotations.Nullable;

/**
 * Prompts under suspicion of having brought a worker down. A kill is not a prompt's fault, so being
 * there at one crash means nothing. At the second, with no progress in between, a prompt becomes a
 * suspect: it runs alone, one suspect at a time in a worker, until it is past the point where it
 * stood; only a crash in that time counts against it. Tokens are a function of the sequence alone,
 * so what crashed the worker once would do so again at the same token: a prompt that got further
 * has cleared itself.
 *
 * <p>Shared by all tasks of a worker; safe for several threads.
 */
final class Quarantine {
  /** Crashes at one point after which a prompt runs alone. */
  static final int SUSPECT = 2;

  private final UUID worker = UUID.randomUUID();
  private @Nullable InFlightPrompt inside;
  private long enteredAt;
  private long reopensAt = Long.MIN_VALUE;

  /** Tells this process from every other that may have owned a task. */
  UUID worker() {
    return worker;
  }

  /**
   * Lets a suspect in if there is none inside. The others, which pause meanwhile, then get as much
   * time as the last suspect took.
   *
   * @param now milliseconds since 1970
   */
  synchronized boolean enter(InFlightPrompt prompt, long now) {
    if (inside != null || now < reopensAt) {
      return inside == prompt;
    }
    inside = prompt;
    enteredAt = now;
    return true;
  }

  /** Nothing happens if it is not inside. */
  synchronized void leave(InFlightPrompt prompt, long now) {
    if (inside == prompt) {
      inside = null;
      reopensAt = now + Math.max(0, now - enteredAt);
    }
  }
}
