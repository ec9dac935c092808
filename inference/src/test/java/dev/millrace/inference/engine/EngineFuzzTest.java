package dev.millrace.inference.engine;

import static org.assertj.core.api.Assertions.assertThat;

import ch.qos.logback.classic.Level;
import ch.qos.logback.classic.Logger;
import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.api.Scheduling;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.slf4j.LoggerFactory;

/**
 * Random worlds, each from its seed: sizes, requests, arrivals, aborts and failures. After every
 * round the books of Scheduler and BlockManager must balance, and in the end each sequence must
 * have come to what it comes to alone.
 */
class EngineFuzzTest {
  private static final int WORLDS = 3000;

  /** Failed steps are wanted here: nobody needs to read of each. */
  @BeforeAll
  static void silence() {
    ((Logger) LoggerFactory.getLogger(Engine.class)).setLevel(Level.OFF);
  }

  @AfterAll
  static void speak() {
    ((Logger) LoggerFactory.getLogger(Engine.class)).setLevel(null);
  }

  @Test
  void shouldKeepItsBooksAndGiveEachSequenceItsOwnTokens() {
    int gaveWay = 0;
    for (int seed = 0; seed < WORLDS; seed++) {
      World world = new World(seed);
      try {
        world.run();
        gaveWay += world.gaveWay();
      } catch (Throwable e) {
        throw new AssertionError("world of seed " + seed + ": " + world, e);
      }
    }
    assertThat(gaveWay).as("sequences that gave way").isGreaterThan(1000);
  }

  private record Expected(List<Integer> tokens, String outcome) {}

  /** A request and what must come of it. */
  private static final class Job {
    final TokenRequest request;
    final Recorder recorder = new Recorder();
    final Expected expected;
    final Engine.Handle handle;
    boolean aborted;
    int allowed;

    Job(TokenRequest request, Expected expected, Engine engine) {
      this.request = request;
      this.expected = expected;
      this.allowed = request.scheduling().allowed();
      this.handle = engine.submit(request, recorder);
    }
  }

  /** A sequence after a round. */
  private record Seen(
      long stay, boolean runs, boolean suspect, boolean isolating, int wanted, int scheduled) {}

  private static final class World {
    final Random random;
    final EngineConfig config;
    final Runner.Info info;
    final HashRunner runner;
    final Engine engine;
    final List<Job> jobs = new ArrayList<>();
    final int[] shared;
    final double failureRate;
    int aloneFailures;
    final Map<Sequence, Seen> seen = new HashMap<>();
    boolean aborting;

    /** There were suspects. */
    boolean suspected;

    /** It expects answers of a few tokens, so that there is too little memory again and again. */
    final boolean misled;

    /** One comes that is to run alone: it may have been and gone within the round. */
    boolean isolated;

    World(int seed) {
      random = new Random(seed);
      int maxSequences = 1 + random.nextInt(8);
      int tokenBudget = maxSequences + random.nextInt(24);
      config =
          new EngineConfig(
              maxSequences,
              tokenBudget,
              1 + random.nextInt(tokenBudget),
              random.nextInt(4) > 0,
              random.nextInt(6),
              1 + random.nextInt(3),
              random.nextInt(3) * 0.3);
      info =
          new Runner.Info(
              6 + random.nextInt(60),
              8 + random.nextInt(80),
              1 + random.nextInt(5),
              3 + random.nextInt(40),
              1 + random.nextInt(2));
      runner = new HashRunner(info, config, random);
      failureRate = random.nextInt(3) == 0 ? 0.3 * random.nextDouble() : 0;
      runner.failing = batch -> injects(batch);
      runner.refusing = batch -> random.nextInt(4) == 0 && injects(batch);
      engine = new Engine(runner, config, false);
      misled = random.nextInt(3) > 0;
      if (misled) {
        AnswerLengths lengths = engine.scheduler().admission().lengths();
        for (int i = 0; i < 300; i++) {
          lengths.ended(1 + random.nextInt(3), true);
        }
        lengths.learn();
      }
      shared = random.ints(60, 2, info.vocabSize()).toArray();
    }

    /** Never so often to one that runs alone that it would be given up. */
    private boolean injects(Batch batch) {
      if (random.nextDouble() >= failureRate) {
        return false;
      }
      return batch.sequences > 1 || aloneFailures++ < config.stepAttempts() - 1;
    }

    void run() {
      int total = 1 + random.nextInt(30);
      boolean burst = random.nextBoolean();
      int idle = 0;
      for (int round = 0; idle < 3; round++) {
        isolated = false;
        while (jobs.size() < total && (burst || random.nextInt(4) == 0)) {
          jobs.add(job());
          isolated |= jobs.getLast().request.scheduling().alone() > 0;
        }
        aborting = random.nextInt(12) == 0 && !jobs.isEmpty();
        if (aborting) {
          Job job = jobs.get(random.nextInt(jobs.size()));
          job.aborted = true;
          engine.abort(job.handle);
        }
        if (idle > 0 || random.nextInt(8) == 0) {
          allowMore();
        }
        boolean worked = engine.round();
        assertThat(engine.stats().failure()).isNull();
        checkBooks();
        checkProgress();
        idle = worked || jobs.size() < total ? 0 : idle + 1;
        assertThat(round).as("rounds").isLessThan(30_000);
      }
      for (Job job : jobs) {
        checkOutcome(job);
      }
      assertThat(engine.blocks().free()).isEqualTo(info.blocks());
      assertThat(engine.blocks().reserved()).isZero();
      assertThat(engine.scheduler().isolating()).isFalse();
      assertThat(engine.stats().kvUse()).isZero();
      assertThat(engine.stats().waitingTokens()).isZero();
    }

    /** Sequences that gave way to others; none does so over and over. */
    int gaveWay() {
      int count = 0;
      for (Job job : jobs) {
        Sequence sequence = (Sequence) job.handle;
        // Suspects take what they need, of whomever, and so do all of those that wait to be
        // allowed.
        if (job.allowed == Integer.MAX_VALUE) {
          assertThat(sequence.preempted)
              .as("%s gave way", sequence)
              .isLessThanOrEqualTo(suspected ? 10 : 3);
        }
        count += sequence.preempted > 0 ? 1 : 0;
      }
      return count;
    }

    private void allowMore() {
      for (Job job : jobs) {
        if (job.allowed < Integer.MAX_VALUE) {
          // Less than before changes nothing.
          engine.allow(job.handle, random.nextInt(job.allowed + 1));
          job.allowed += 1 + random.nextInt(6);
          engine.allow(job.handle, job.allowed);
        }
      }
    }

    private Scheduling scheduling() {
      return new Scheduling(
          random.nextInt(3),
          "t" + random.nextInt(3),
          random.nextInt(20) == 0 ? 1 + random.nextInt(12) : 0,
          random.nextInt(4) == 0 ? random.nextInt(12) : Integer.MAX_VALUE);
    }

    private Job job() {
      int length = random.nextInt(20) == 0 ? random.nextInt(100) : 1 + random.nextInt(25);
      int[] prompt = random.ints(length, 2, info.vocabSize()).toArray();
      int common = random.nextInt(3) == 0 ? 0 : random.nextInt(Math.min(length, 60) + 1);
      System.arraycopy(shared, 0, prompt, 0, common);
      if (length > 0 && random.nextInt(25) == 0) {
        prompt[random.nextInt(length)] = random.nextInt(3) == 0 ? 1000 : HashRunner.POISON;
      }
      int maxTokens = 1 + random.nextInt(30);
      SamplingParams sampling =
          new SamplingParams(
              1,
              1,
              0,
              0,
              1,
              0,
              0,
              random.nextInt(50),
              maxTokens,
              random.nextInt(3) == 0 ? random.nextInt(maxTokens + 1) : 0,
              List.of(),
              random.nextInt(5) == 0,
              -1);
      Expected whole = expect(prompt, sampling);
      // A continuation from any point must come to the same.
      int known = random.nextInt(4) == 0 ? random.nextInt(whole.tokens().size() + 1) : 0;
      int[] resume = whole.tokens().stream().limit(known).mapToInt(i -> i).toArray();
      List<Integer> rest = whole.tokens().subList(known, whole.tokens().size());
      return new Job(
          new TokenRequest(
              "j" + jobs.size(),
              prompt,
              resume,
              sampling,
              new int[] {HashRunner.STOP, 5},
              scheduling()),
          new Expected(rest, whole.outcome()),
          engine);
    }

    /** What the model comes to with one sequence, token by token. */
    private Expected expect(int[] prompt, SamplingParams sampling) {
      int context = Math.min(info.maxContext(), info.blocks() * info.blockSize() + 1);
      if (prompt.length == 0) {
        return new Expected(List.of(), "failed INVALID_REQUEST");
      }
      if (prompt.length >= context) {
        return new Expected(List.of(), "failed PROMPT_TOO_LONG");
      }
      if (Arrays.stream(prompt).anyMatch(t -> t >= info.vocabSize())) {
        return new Expected(List.of(), "failed INVALID_REQUEST");
      }
      if (Arrays.stream(prompt).anyMatch(t -> t == HashRunner.POISON)) {
        return new Expected(List.of(), "failed ENGINE");
      }
      int hash = HashRunner.start(info.vocabSize());
      for (int token : prompt) {
        hash = HashRunner.mix(hash, token);
      }
      List<Integer> tokens = new ArrayList<>();
      long seed = sampling.seed();
      while (tokens.size() < sampling.maxTokens() && prompt.length + tokens.size() < context) {
        boolean early = tokens.size() < sampling.minTokens();
        int token = HashRunner.token(hash, seed, info.vocabSize(), early, seed % 7 == 3);
        if (token == -1) {
          return new Expected(tokens, "failed ENGINE");
        }
        if ((token == HashRunner.STOP || token == 5) && !early && !sampling.ignoreEos()) {
          return new Expected(tokens, "STOP");
        }
        tokens.add(token);
        hash = HashRunner.mix(hash, token);
      }
      return new Expected(tokens, "LENGTH");
    }

    private void checkOutcome(Job job) {
      assertThat(job.recorder.broken).isNull();
      String outcome = job.recorder.outcome();
      if (job.aborted && "CANCELLED".equals(outcome)) {
        List<Integer> heard = job.recorder.tokens;
        assertThat(heard.size()).isLessThanOrEqualTo(job.expected.tokens().size());
        assertThat(heard).isEqualTo(job.expected.tokens().subList(0, heard.size()));
      } else {
        assertThat(outcome)
            .as("%s: %s", job.request.id(), job.recorder.message)
            .isEqualTo(job.expected.outcome());
        assertThat(job.recorder.tokens).as(job.request.id()).isEqualTo(job.expected.tokens());
      }
    }

    private void checkBooks() {
      BlockManager blocks = engine.blocks();
      int[] holders = new int[info.blocks()];
      int reserved = 0;
      int owned = 0;
      int running = 0;
      long computed = 0;
      long toCompute = 0;
      for (Sequence s : engine.scheduler().all()) {
        assertThat(s.state).isIn(Sequence.State.RUNNING, Sequence.State.WAITING);
        if (s.state == Sequence.State.WAITING) {
          toCompute += s.length();
          assertThat(s.blockCount + s.reserved + s.pending() + s.scheduled()).as("%s", s).isZero();
          continue;
        }
        running++;
        computed += s.computed();
        toCompute += Math.max(0, engine.lanes().prefill[s.lane] - s.computed());
        assertThat(s.shareable)
            .as("blocks of %s that others may share", s)
            .isEqualTo(config.prefixCache() ? s.computed() / info.blockSize() : 0);
        reserved += s.reserved;
        assertThat(s.computed()).as("computed of %s", s).isLessThanOrEqualTo(s.scheduled());
        assertThat(s.scheduled()).as("scheduled of %s", s).isLessThanOrEqualTo(s.planned());
        assertThat(s.planned()).as("planned of %s", s).isLessThanOrEqualTo(s.limit);
        assertThat(s.pending()).as("pending of %s", s).isLessThan(info.depth());
        assertThat(s.generated() + s.pending())
            .as("generated and on its way of %s", s)
            .isLessThanOrEqualTo(Math.max(allowed(s), s.request.resume().length));
        assertThat(s.blockCount * info.blockSize())
            .as("blocks of %s", s)
            .isGreaterThanOrEqualTo(s.scheduled());
        assertThat(s.blockCount + s.reserved)
            .as("blocks for the known tokens of %s", s)
            .isGreaterThanOrEqualTo(blocks.blocksFor(s.length() - 1))
            .isLessThanOrEqualTo(blocks.blocksFor(s.limit - 1));
        owned += s.owned;
        int[] held = Arrays.copyOf(s.blocks, s.blockCount);
        assertThat(Arrays.stream(held).distinct().count()).isEqualTo(s.blockCount);
        for (int i = 0; i < s.blockCount; i++) {
          holders[held[i]]++;
          boolean writable = (i + 1) * info.blockSize() > s.computed();
          if (writable) {
            assertThat(blocks.references(held[i])).as("writers of block %d", held[i]).isEqualTo(1);
            assertThat(blocks.shareableTokens(held[i])).as("block %d is open", held[i]).isNull();
          }
        }
      }
      assertThat(running).isEqualTo(engine.scheduler().running());
      assertThat(running).isLessThanOrEqualTo(config.maxSequences());
      assertThat(reserved).isEqualTo(blocks.reserved()).isLessThanOrEqualTo(blocks.free());
      assertThat(owned).isLessThanOrEqualTo(info.blocks() - blocks.available());
      int[] free = blocks.freeBlocks();
      assertThat(free).hasSize(blocks.free()).doesNotHaveDuplicates();
      assertThat(free.length + IntStream.of(holders).filter(n -> n > 0).count())
          .isEqualTo(info.blocks());
      for (int block = 0; block < holders.length; block++) {
        assertThat(blocks.references(block)).as("holders of %d", block).isEqualTo(holders[block]);
        int[] content = blocks.shareableTokens(block);
        if (content != null) {
          assertThat(config.prefixCache()).isTrue();
          int slot = block * info.blockSize();
          assertThat(Arrays.copyOfRange(runner.tokens, slot, slot + info.blockSize()))
              .as("content of shareable block %d", block)
              .isEqualTo(content);
        }
      }
      assertThat(engine.stats().runningTokens()).isEqualTo(computed);
      assertThat(engine.stats().waitingTokens()).isEqualTo(toCompute);
      assertThat(engine.stats().waiting() + engine.stats().running())
          .isEqualTo(jobs.stream().filter(j -> j.recorder.outcome() == null).count());
    }

    private int allowed(Sequence sequence) {
      return jobs.stream().filter(job -> job.handle == sequence).findFirst().orElseThrow().allowed;
    }

    /**
     * Whatever runs and has something to compute gets on in each round; but while there are
     * suspects only these do, and nobody else is admitted.
     */
    private void checkProgress() {
      boolean isolating = engine.scheduler().isolating();
      suspected |= isolating || isolated;
      Map<Sequence, Seen> now = new HashMap<>();
      for (Sequence s : engine.scheduler().all()) {
        boolean runs = s.state == Sequence.State.RUNNING;
        long stay = runs ? engine.lanes().stay[s.lane] : 0;
        Seen before = seen.get(s);
        if (before != null
            && (!before.runs || before.stay == stay)
            && isolating == before.isolating
            && !isolated) {
          if (!isolating && before.runs && before.wanted > 0) {
            assertThat(s.scheduled()).as("progress of %s", s).isGreaterThan(before.scheduled);
          } else if (isolating && !before.suspect && !aborting) {
            assertThat(s.scheduled()).as("%s pauses", s).isEqualTo(before.scheduled);
            assertThat(runs).as("%s runs", s).isEqualTo(before.runs);
          }
        }
        now.put(s, new Seen(stay, runs, s.suspect, isolating, s.wanted(), s.scheduled()));
      }
      seen.clear();
      seen.putAll(now);
    }

    @Override
    public String toString() {
      return info + " " + config + " failures " + failureRate + ", " + jobs.size() + " jobs";
    }
  }
}
