package dev.millrace.inference.engine;

import dev.millrace.inference.api.TokenLogprob;
import dev.millrace.inference.sampling.SamplingState;
import java.util.ArrayDeque;
import java.util.Arrays;
import java.util.Deque;
import java.util.HashSet;
import java.util.Random;
import java.util.Set;
import java.util.function.Predicate;
import org.jspecify.annotations.Nullable;

/**
 * A model whose next token is a hash of all tokens before it, as they are found in the KV memory
 * through block table and slots: one wrong slot, block, position or token source gives another
 * token. It keeps the rules of {@link Runner} and fails the test where the engine breaks one.
 */
final class HashRunner implements Runner {
  /** A step that has this among its tokens fails. */
  static final int POISON = 1;

  /** Ends a sequence. */
  static final int STOP = 0;

  private final Info info;
  private final EngineConfig config;

  /** Decides whether steps run at submission or not before their result is awaited. */
  private final Random timing;

  /** [slot] what a key and value stand for. */
  final int[] tokens;

  final int[] positions;

  private final Deque<Handle> inFlight = new ArrayDeque<>();
  private int[] previous = {};
  int steps;
  boolean closed;

  /** Asked for each step that is about to run: whether it fails, and whether at submission. */
  Predicate<Batch> failing = batch -> false;

  Predicate<Batch> refusing = batch -> false;

  /** Set: the next step is the last. */
  boolean dying;

  HashRunner(Info info, EngineConfig config, Random timing) {
    this.info = info;
    this.config = config;
    this.timing = timing;
    this.tokens = new int[info.blocks() * info.blockSize()];
    this.positions = new int[tokens.length];
    Arrays.fill(positions, -1);
  }

  static int start(int vocab) {
    return 0x2545F491 ^ vocab;
  }

  static int mix(int hash, int token) {
    hash = (hash ^ token) * 0x9E3779B1;
    return hash ^ (hash >>> 15);
  }

  /** The token after a context with this hash; never POISON; -1 (no numbers) for some. */
  static int token(int hash, long seed, int vocab, boolean maskStop, boolean sick) {
    long mixed = (hash ^ (seed * 0x9E3779B97F4A7C15L)) * 0xD6E8FEB86659FD93L;
    int draw = (int) ((mixed >>> 32) % 97);
    if (sick && draw == 96) {
      return -1;
    }
    if (!maskStop && draw < 5) {
      return STOP;
    }
    return 2 + (int) ((mixed >>> 40) % (vocab - 2));
  }

  @Override
  public Info info() {
    return info;
  }

  @Override
  public StepHandle submit(Batch batch) {
    if (inFlight.size() == info.depth()) {
      throw new AssertionError("more steps in flight than the depth allows");
    }
    check(batch);
    if (refusing.test(batch)) {
      throw new IllegalStateException("refused");
    }
    steps++;
    Handle handle = new Handle(batch, inFlight.peekLast());
    inFlight.add(handle);
    if (timing.nextBoolean()) {
      inFlight.forEach(Handle::run);
    }
    return handle;
  }

  @Override
  public void close() {
    if (!inFlight.isEmpty()) {
      throw new AssertionError("closed with " + inFlight.size() + " steps in flight");
    }
    closed = true;
  }

  private void check(Batch batch) {
    verify(batch.sequences > 0 && batch.sequences <= config.maxSequences(), "sequences");
    verify(batch.tokenCount > 0 && batch.tokenCount <= config.tokenBudget(), "budget");
    verify(batch.queryStart[0] == 0, "queryStart");
    verify(batch.queryStart[batch.sequences] == batch.tokenCount, "queryStart");
    Set<Integer> slots = new HashSet<>();
    int row = 0;
    for (int i = 0; i < batch.sequences; i++) {
      int count = batch.queryStart[i + 1] - batch.queryStart[i];
      verify(count > 0, "a sequence without tokens");
      verify(batch.contextLength[i] <= info.maxContext(), "context");
      verify(batch.maxBlocks * info.blockSize() >= batch.contextLength[i], "maxBlocks");
      for (int q = batch.queryStart[i]; q < batch.queryStart[i + 1]; q++) {
        int position = batch.contextLength[i] - batch.queryStart[i + 1] + q;
        verify(batch.positions[q] == position, "position");
        verify(batch.slots[q] == slot(batch, i, position), "slot");
        verify(slots.add(batch.slots[q]), "slot written twice");
        verify(batch.tokens[q] >= 0 && batch.tokens[q] < info.vocabSize(), "token");
      }
      if (row < batch.logitCount && batch.logitRows[row] < batch.queryStart[i + 1]) {
        verify(batch.logitRows[row] == batch.queryStart[i + 1] - 1, "logit row");
        row++;
      }
    }
    verify(row == batch.logitCount, "logit rows");
  }

  private int slot(Batch batch, int sequence, int position) {
    int block = batch.blockTable[sequence * batch.maxBlocks + position / info.blockSize()];
    return block * info.blockSize() + position % info.blockSize();
  }

  private static void verify(boolean holds, String what) {
    if (!holds) {
      throw new AssertionError("batch is wrong: " + what);
    }
  }

  private final class Handle implements StepHandle {
    private final Batch batch;
    private final @Nullable Handle before;
    private final int[] sampled;
    private boolean ran;
    private @Nullable StepFailedException failure;

    Handle(Batch batch, @Nullable Handle before) {
      this.batch = batch;
      this.before = before;
      this.sampled = new int[batch.logitCount];
    }

    void run() {
      if (ran) {
        return;
      }
      ran = true;
      boolean fails = failing.test(batch);
      int row = 0;
      for (int i = 0; i < batch.sequences; i++) {
        for (int q = batch.queryStart[i]; q < batch.queryStart[i + 1]; q++) {
          int from = batch.tokenFrom[q];
          int token = from >= 0 ? Math.max(0, previous[from]) : batch.tokens[q];
          fails |= token == POISON;
          tokens[batch.slots[q]] = token;
          positions[batch.slots[q]] = batch.positions[q];
        }
        if (row < batch.logitCount && batch.logitRows[row] == batch.queryStart[i + 1] - 1) {
          sampled[row] = sample(i, batch.sampling[row]);
          batch.sampling[row].append(sampled[row]);
          row++;
        }
      }
      if (fails || dying) {
        // The worst that a failed step can leave behind.
        for (int q = 0; q < batch.tokenCount; q++) {
          tokens[batch.slots[q]] = timing.nextInt(info.vocabSize());
        }
        Arrays.setAll(sampled, i -> timing.nextInt(info.vocabSize()));
        failure = new StepFailedException("injected", new RuntimeException("cause"), dying);
      }
      previous = sampled;
    }

    private int sample(int sequence, SamplingState state) {
      int length = batch.contextLength[sequence];
      int hash = start(info.vocabSize());
      boolean whole = state.position() == length;
      for (int p = 0; p < length; p++) {
        int slot = slot(batch, sequence, p);
        whole &= positions[slot] == p;
        hash = mix(hash, tokens[slot]);
        whole &= p >= state.position() || tokens[slot] == state.token(p);
      }
      boolean maskStop = state.generated() < state.params().minTokens();
      long seed = state.params().seed();
      // A step that follows a failed one computes nonsense, which nobody may look at.
      return token(whole ? hash : ~hash, seed, info.vocabSize(), maskStop, seed % 7 == 3);
    }

    @Override
    public Result await() throws StepFailedException {
      verify(inFlight.peek() == this, "awaited in another order than submitted");
      verify(before == null || before.ran, "order");
      run();
      inFlight.poll();
      if (failure != null) {
        throw failure;
      }
      return new Result(sampled, new @Nullable TokenLogprob[sampled.length]);
    }
  }
}
