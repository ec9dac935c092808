package dev.millrace.inference.engine;

import java.util.Collection;
import java.util.TreeSet;
import org.jspecify.annotations.Nullable;

/**
 * The members of failed steps, until they got past the point of failure, and those that asked to be
 * treated so: those that wait, in order, and how many run. They run in ever smaller groups. Plain
 * bookkeeping, of the engine thread.
 */
final class Suspects {
  private final TreeSet<Sequence> waiting = new TreeSet<>(Sequence.ORDER);
  private int running;

  /** Most that run at once. */
  private int limit = Integer.MAX_VALUE;

  /** Suspects of their own accord: each runs by itself. */
  private int alone;

  /** Whether there are any: nobody else is computed as long. */
  boolean isolating() {
    return running > 0 || !waiting.isEmpty();
  }

  /** Makes a new sequence one, for its next so many tokens. */
  void volunteer(Sequence sequence, int tokens) {
    sequence.suspect = true;
    sequence.alone = true;
    alone++;
    // The last token of all is never computed.
    sequence.suspectUntil = (int) Math.min((long) sequence.length() + tokens, sequence.limit - 1);
  }

  /** Makes a member of a failed step one, until it has so many tokens computed. */
  void accuse(Sequence sequence, int until) {
    sequence.suspect = true;
    sequence.suspectUntil = Math.max(sequence.suspectUntil, until);
  }

  /** So many were members of a step that failed. */
  void failed(int members) {
    limit = Math.max(1, Math.min(limit, members) / 2);
  }

  /** One that runs got past the point of failure. */
  void passed(Sequence sequence) {
    acquit(sequence);
    running--;
    limit = (int) Math.min(Integer.MAX_VALUE, limit * 2L);
  }

  /** It is none any more, if it was one; of one that ran {@link #stops} was told before. */
  void acquit(Sequence sequence) {
    alone -= sequence.alone ? 1 : 0;
    sequence.alone = false;
    sequence.suspect = false;
    sequence.suspectUntil = 0;
    sequence.attempts = 0;
  }

  /** Whether groups may be of any size again, which they were not. */
  boolean end() {
    boolean ends = limit != Integer.MAX_VALUE && !isolating();
    if (ends) {
      limit = Integer.MAX_VALUE;
    }
    return ends;
  }

  /** A sequence begins to run. */
  void starts(Sequence sequence) {
    running += sequence.suspect ? 1 : 0;
  }

  /** A sequence runs no more. */
  void stops(Sequence sequence) {
    running -= sequence.suspect ? 1 : 0;
  }

  boolean mayStart() {
    return running < (alone > 0 ? 1 : limit);
  }

  /** Whether all of them wait, and there are some. */
  boolean allWait() {
    return running == 0 && !waiting.isEmpty();
  }

  void add(Sequence sequence) {
    waiting.add(sequence);
  }

  void remove(Sequence sequence) {
    waiting.remove(sequence);
  }

  /** The next one, taken out; null if nobody waits. */
  @Nullable Sequence poll() {
    return waiting.pollFirst();
  }

  Collection<Sequence> waiting() {
    return waiting;
  }

  void clear() {
    waiting.clear();
    running = 0;
    alone = 0;
  }
}
