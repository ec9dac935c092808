package dev.millrace.inference.engine;

import dev.millrace.inference.api.Generator;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Decides which tokens of which sequences the next step computes. No phases: a sequence has tokens
 * and computed tokens, a step hands out a budget so that computed catches up. Plain bookkeeping, of
 * the engine thread.
 *
 * <ul>
 *   <li>Running sequences go first, in the order of their admission, and each gets at least one
 *       token. While others could be admitted none takes more than a chunk.
 *   <li>Then waiting ones, in the order of {@link WaitingQueue}, as far as {@link Admission}
 *       expects memory for them to their ends. Before each step everybody in it has the blocks that
 *       it needs: where there are too few some give way, and restart later from their known tokens.
 *   <li>Later ones may pass a waiting one that does not fit yet, but only so many.
 *   <li>The members of a failed step become suspects. They restart from their known tokens in ever
 *       smaller groups, with nobody else in their steps, until they got past the point of failure.
 *       One that fails alone is charged with it; so a sequence that breaks its steps takes no other
 *       one with it. A request may ask to begin as a suspect of its own accord.
 * </ul>
 *
 * One that has all the tokens that it was allowed takes no part in steps, and keeps its blocks
 * unless others need them.
 *
 * <p>A step's cost here depends on who runs, not on how many wait.
 */
final class Scheduler {
  /** Waiting sequences looked at behind one that does not fit. */
  private static final int LOOKAHEAD = 16;

  /** Plans between two looks at waiting ones where nothing changed but that time goes by. */
  private static final int PATIENCE = 8;

  private final EngineConfig config;
  private final BlockManager blocks;
  private final Lanes lanes;
  private final Admission admission;

  private final RunningSequences running;

  /** Lanes that one after another are to be worked with. */
  private final int[] due;

  private final WaitingQueue waiting;

  /** Sum of the known tokens of all that wait. */
  private long waitingTokens;

  /** The head of the queue does not fit, and nothing has changed since that was found. */
  private boolean stalled;

  private int stalledPlans;

  /** This plan looks at waiting ones for no other reason: at the head alone. */
  private boolean glance;

  private final Suspects suspects = new Suspects();
  private final @Nullable Sequence[] passed = new Sequence[LOOKAHEAD + 1];
  private long arrivals;
  private long preemptions;

  Scheduler(EngineConfig config, BlockManager blocks, Lanes lanes) {
    this.config = config;
    this.blocks = blocks;
    this.lanes = lanes;
    this.admission = new Admission(blocks);
    this.running = new RunningSequences(config.maxSequences());
    this.due = new int[config.maxSequences()];
    this.waiting = new WaitingQueue(config.lowShare());
  }

  /** Queues a new sequence. */
  void add(Sequence sequence) {
    sequence.become(Sequence.State.NEW, Sequence.State.WAITING);
    sequence.arrival = arrivals++;
    int tokens = sequence.request.scheduling().alone();
    if (tokens > 0) {
      suspects.volunteer(sequence, tokens);
    }
    enqueue(sequence);
  }

  /** Fills an empty step; it stays empty if there is nothing to compute now. */
  void plan(Step step) {
    running.closeGaps();
    waiting.settle();
    admission.begin();
    glance = stalled && ++stalledPlans % PATIENCE == 0;
    stalled &= !glance;
    int members = reserve();
    int budget = continueRunning(step, config.tokenBudget(), members);
    admit(step, budget);
    // While suspects run the others pause. Where these leave the first suspect no room they go.
    while (step.size() == 0 && suspects.allWait() && giveWay() != null) {
      admit(step, budget);
    }
    step.seal();
  }

  /** The tokens of a step that ended well are computed. */
  void computed(Step step) {
    int count = step.computed(due);
    lanes.glimpseSequences(due, count);
    for (int i = 0; i < count; i++) {
      computed(lanes.sequence(due[i]), lanes.computed[due[i]]);
    }
  }

  private void computed(Sequence sequence, int end) {
    int next = blocks.computed(sequence, end);
    if (sequence.suspect && end >= sequence.suspectUntil) {
      suspects.passed(sequence);
      endIsolation();
    }
    lanes.watched[sequence.lane] = sequence.suspect ? Math.min(next, sequence.suspectUntil) : next;
  }

  /**
   * The sequence has ended; its blocks are free, and cached where they are full.
   *
   * @param stopped whether its answer has, before its limit
   */
  void remove(Sequence sequence, boolean stopped) {
    if (sequence.state == Sequence.State.WAITING) {
      dequeue(sequence);
    } else if (sequence.state == Sequence.State.RUNNING) {
      admission.ended(sequence, stopped);
      leaveRunning(sequence);
      waiting.ended(sequence, sequence.length());
    }
    suspects.acquit(sequence);
    sequence.ended();
    endIsolation();
  }

  /** Takes what the sequence holds out of the cache. */
  void forget(Sequence sequence) {
    blocks.forget(sequence);
  }

  /**
   * The results of a step are lost: its members become suspects and restart.
   *
   * @return the member that is to be given up, which has not restarted, or null
   */
  @Nullable Sequence failed(Step step) {
    int count = 0;
    Sequence convicted = null;
    for (int i = 0; i < step.size(); i++) {
      if (!step.valid(i)) {
        continue;
      }
      count++;
      Sequence sequence = step.member(i);
      if (step.size() == 1) {
        // Nothing that it computed is trusted in the next attempt.
        blocks.forget(sequence);
        if (++sequence.attempts >= config.stepAttempts()) {
          convicted = sequence;
          continue;
        }
      }
      leaveRunning(sequence);
      waiting.ended(sequence, sequence.length());
      suspects.accuse(sequence, step.end(i));
      preemptions++;
      sequence.restart();
      enqueue(sequence);
    }
    if (count > 0) {
      suspects.failed(count);
    }
    return convicted;
  }

  int waiting() {
    return waiting.size() + suspects.waiting().size();
  }

  int running() {
    return running.count();
  }

  /** Those that run and wait to be allowed more tokens; null if none does. */
  Generator.@Nullable Held held() {
    return running.held(lanes);
  }

  /** Sequences that lost what was computed of them and began again. */
  long preemptions() {
    return preemptions;
  }

  /** Known tokens of waiting and running sequences that were never computed. */
  long uncomputedTokens() {
    return waitingTokens + lanes.uncomputedTokens();
  }

  long computedTokens() {
    return lanes.computedTokens();
  }

  /** All that run or wait. */
  List<Sequence> all() {
    List<Sequence> all = new ArrayList<>();
    running.addTo(all);
    all.addAll(suspects.waiting());
    all.addAll(waiting.all());
    return all;
  }

  /** Takes everything out, without bookkeeping: nothing can be scheduled after that. */
  List<Sequence> drain() {
    List<Sequence> all = all();
    lanes.close();
    running.clear();
    suspects.clear();
    waiting.clear();
    waitingTokens = 0;
    return all;
  }

  /**
   * Reserves what the step will add to those that run; where that is too much some give way.
   *
   * @return how many take part in it
   */
  private int reserve() {
    boolean isolating = isolating();
    int end = running.end();
    int count = isolating ? end : lanes.others(running.lanes(), end, due);
    if (isolating) {
      System.arraycopy(running.lanes(), 0, due, 0, count);
    }
    lanes.glimpseSequences(due, count);
    int members = end - count;
    int lacking = 0;
    for (int i = 0; i < count; i++) {
      Sequence sequence = lanes.sequence(due[i]);
      sequence.settle();
      if (takesPart(sequence, isolating)) {
        members++;
        lacking += extend(sequence) ? 0 : 1;
      }
    }
    if (lacking == 0) {
      return members;
    }
    while (blocks.available() < lacking) {
      Sequence gone = giveWay();
      if (gone == null) {
        throw new IllegalStateException("a sequence that is alone has no room");
      }
      lacking = lacking(isolating);
    }
    members = 0;
    for (int i = 0; i < running.end(); i++) {
      if (takesPart(running.get(i), isolating)) {
        members++;
        if (!extend(running.get(i))) {
          throw new IllegalStateException(running.get(i) + " has no room");
        }
      }
    }
    // Nobody comes in at once to where somebody had to go.
    stalled = true;
    return members;
  }

  private int lacking(boolean isolating) {
    int lacking = 0;
    for (int i = 0; i < running.end(); i++) {
      Sequence sequence = running.get(i);
      if (takesPart(sequence, isolating)) {
        lacking += blocks.covers(sequence, sequence.scheduled() + sequence.wanted()) ? 0 : 1;
      }
    }
    return lacking;
  }

  private boolean extend(Sequence sequence) {
    return blocks.extend(sequence, sequence.scheduled() + sequence.wanted());
  }

  /**
   * @param members of those that run
   * @return what is left of the budget
   */
  private int continueRunning(Step step, int budget, int members) {
    boolean isolating = isolating();
    int left = budget;
    int others = members;
    int end = running.end();
    int i = 0;
    while (i < end) {
      int decoding = isolating ? i : lanes.decoding(running.lanes(), i, end);
      if (decoding > i) {
        step.decode(running.lanes(), i, decoding);
        others -= decoding - i;
        left -= decoding - i;
        i = decoding;
        continue;
      }
      if (takesPart(running.get(i), isolating)) {
        others--;
        left -= schedule(step, running.get(i), left - others);
      }
      i++;
    }
    return left;
  }

  private static boolean takesPart(Sequence sequence, boolean isolating) {
    return sequence.wanted() > 0 && (!isolating || sequence.suspect);
  }

  private void admit(Step step, int budget) {
    if (stalled && step.size() > 0) {
      return;
    }
    boolean isolating = isolating();
    int passedCount = 0;
    boolean closed = false;
    while (!closed
        && budget > 0
        && running.count() < config.maxSequences()
        && (!isolating || suspects.mayStart())) {
      Sequence candidate = isolating ? suspects.poll() : waiting.poll();
      if (candidate == null) {
        stalled = passedCount > 0;
        break;
      }
      if (hasRoom(candidate, isolating || step.size() == 0)) {
        int cached = blocks.admit(candidate);
        admission.admitted(candidate);
        if (!isolating) {
          waiting.admitted(candidate);
        }
        start(candidate, cached);
        budget -= schedule(step, candidate, budget);
        closed = passBy(passedCount);
      } else {
        closed = glance || passedCount == LOOKAHEAD || candidate.bypassed >= config.maxBypass();
        passed[passedCount++] = candidate;
      }
    }
    for (int i = 0; i < passedCount; i++) {
      Sequence back = passed(i);
      if (back.suspect) {
        suspects.add(back);
      } else {
        waiting.add(back);
      }
      passed[i] = null;
    }
    stalled |= closed;
  }

  /**
   * Whether there is room for a sequence.
   *
   * @param now for its known tokens is enough: nobody else has anything to compute, and may not for
   *     long, or all others pause
   */
  private boolean hasRoom(Sequence candidate, boolean now) {
    int taken = blocks.probe(candidate);
    return taken <= blocks.available()
        && (now || admission.fits(candidate, taken, running.sequences(), running.end()));
  }

  /** Somebody was admitted before these; true if one of them lets nobody pass any more. */
  private boolean passBy(int passedCount) {
    boolean exhausted = false;
    for (int i = 0; i < passedCount; i++) {
      exhausted |= ++passed(i).bypassed >= config.maxBypass();
    }
    return exhausted;
  }

  private int schedule(Step step, Sequence sequence, int budget) {
    int count = Math.min(sequence.wanted(), budget);
    if (count <= 0) {
      // Admitted with all that it is allowed for now.
      return 0;
    }
    if (othersCouldStart()) {
      count = Math.min(count, config.maxChunk());
    }
    blocks.grow(sequence, sequence.scheduled() + count);
    lanes.settle(sequence);
    step.add(sequence, count);
    return count;
  }

  private boolean othersCouldStart() {
    return !waiting.isEmpty()
        && !stalled
        && !isolating()
        && running.count() < config.maxSequences();
  }

  private Sequence passed(int index) {
    Sequence sequence = passed[index];
    if (sequence == null) {
      throw new IllegalStateException("nobody was passed at " + index);
    }
    return sequence;
  }

  /** Runs one that was taken out of its queue. */
  private void start(Sequence sequence, int cached) {
    waitingTokens -= sequence.length();
    stalled = false;
    sequence.admitted(cached);
    sequence.settle();
    running.add(sequence);
    suspects.starts(sequence);
  }

  private void leaveRunning(Sequence sequence) {
    running.remove(sequence);
    suspects.stops(sequence);
    blocks.release(sequence);
    lanes.leave(sequence);
    stalled = false;
  }

  /**
   * Whom {@link Admission} names goes back to the queue with its known tokens; null: nobody runs.
   */
  private @Nullable Sequence giveWay() {
    boolean isolating = isolating();
    Sequence sequence = Admission.first(running.sequences(), running.end(), isolating);
    if (sequence != null) {
      leaveRunning(sequence);
      running.closeGaps();
      waiting.returned(sequence);
      // It is no matter of memory alone that it goes where others are looked at apart.
      sequence.preempted += isolating ? 0 : 1;
      preemptions++;
      sequence.restart();
      enqueue(sequence);
    }
    return sequence;
  }

  private void enqueue(Sequence sequence) {
    if (sequence.suspect) {
      suspects.add(sequence);
    } else {
      waiting.add(sequence);
    }
    waitingTokens += sequence.length();
    stalled = false;
  }

  private void dequeue(Sequence sequence) {
    if (sequence.suspect) {
      suspects.remove(sequence);
    } else {
      waiting.remove(sequence);
    }
    waitingTokens -= sequence.length();
    stalled = false;
  }

  Admission admission() {
    return admission;
  }

  boolean isolating() {
    return suspects.isolating();
  }

  private void endIsolation() {
    if (suspects.end()) {
      stalled = false;
    }
  }
}
