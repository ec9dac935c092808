package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.engine.Batch;
import dev.millrace.inference.sampling.Sampler;
import dev.millrace.inference.sampling.SamplingState;
import dev.millrace.inference.sampling.TokenCounts;
import dev.millrace.kernels.SamplingKernels;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * How a step's tokens are drawn, as the sampling kernel takes it. Kept from step to step: a row is
 * written when a sequence comes to it, and later only what depends on the position or on the tokens
 * so far, so that greedy sequences cost nothing. Of one thread.
 *
 * <p>The host need not know yet what the step before drew: that token counts as pending, and the
 * kernel looks it up.
 */
final class DrawTable {
  /** Its noise depends on the position. */
  private static final byte NOISE = 1;

  /** It has penalties. */
  private static final byte HISTORY = 2;

  /** Stop tokens may not be drawn before so many others. */
  private static final byte MASKS = 4;

  private static final byte LOGPROBS = 8;

  /** Pairs of token and count. */
  final AttentionPlan.Ints seen = new AttentionPlan.Ints();

  final AttentionPlan.Ints masked = new AttentionPlan.Ints();

  private MemorySegment table = MemorySegment.NULL;

  /** [rows] whose draw is there, what of it changes from step to step, and its seed. */
  private @Nullable SamplingState[] states = new SamplingState[0];

  private byte[] changes = new byte[0];
  private long[] seeds = new long[0];
  private int rows;

  /** What any of the rows has. */
  private int any;

  /** What was written since {@link #sent}. */
  private boolean changed;

  /** Writes what is new in a step. */
  void plan(Batch batch, int vocab) {
    seen.count = 0;
    masked.count = 0;
    any = 0;
    changed |= batch.logitCount > rows;
    int count = batch.logitCount;
    grow(count);
    // Prompts can be large: none is kept alive.
    Arrays.fill(states, count, Math.max(rows, count), null);
    rows = count;
    for (int row = 0; row < count; row++) {
      SamplingState state = batch.sampling[row];
      boolean known = state == states[row];
      if (!known) {
        come(row, state);
      }
      int change = changes[row];
      any |= change;
      if (!known || (change & (HISTORY | MASKS)) != 0) {
        write(batch, row, state, vocab);
        changed = true;
      } else if ((change & NOISE) != 0) {
        long stream = Sampler.stream(seeds[row], position(batch, row));
        SamplingKernels.Draw.writeStream(table, row * SamplingKernels.DRAW_BYTES, stream);
        changed = true;
      }
    }
  }

  private void grow(int count) {
    if (count > states.length) {
      int room = Math.max(count, 2 * states.length);
      MemorySegment larger = Arena.ofAuto().allocate(room * SamplingKernels.DRAW_BYTES, 16);
      MemorySegment.copy(table, 0, larger, 0, table.byteSize());
      table = larger;
      states = Arrays.copyOf(states, room);
      changes = Arrays.copyOf(changes, room);
      seeds = Arrays.copyOf(seeds, room);
    }
  }

  private void come(int row, SamplingState state) {
    SamplingParams params = state.params();
    states[row] = state;
    seeds[row] = params.seed();
    int change = params.temperature() == 0 || params.topK() == 1 ? 0 : NOISE;
    change |= params.hasPenalties() ? HISTORY : 0;
    change |= params.minTokens() > 0 && state.masked(state.promptLength()).length > 0 ? MASKS : 0;
    change |= params.logprobs() >= 0 ? LOGPROBS : 0;
    changes[row] = (byte) change;
  }

  private static int position(Batch batch, int row) {
    return batch.positions[batch.logitRows[row]] + 1;
  }

  private void write(Batch batch, int row, SamplingState state, int vocab) {
    SamplingParams params = state.params();
    int position = position(batch, row);
    int firstSeen = seen.count / 2;
    int pending = -1;
    if (params.hasPenalties()) {
      pending = see(state, position, batch.tokenFrom[batch.logitRows[row]]);
    }
    int firstMasked = masked.count;
    for (int token : state.masked(position)) {
      if (token < vocab) {
        masked.add(token);
      }
    }
    new SamplingKernels.Draw(
            Sampler.stream(params.seed(), position),
            params.topK() == 1 ? 0 : params.temperature(),
            params.minP() == 0 ? Double.NEGATIVE_INFINITY : StrictMath.log(params.minP()),
            params.topP(),
            params.topK(),
            params.logprobs(),
            params.repetitionPenalty(),
            params.presencePenalty(),
            params.frequencyPenalty(),
            firstSeen,
            seen.count / 2 - firstSeen,
            pending,
            firstMasked,
            masked.count - firstMasked)
        .write(table, row * SamplingKernels.DRAW_BYTES);
  }

  /** Notes the tokens so far; the row of the step before that drew one more, or -1. */
  private int see(SamplingState state, int position, int tokenFrom) {
    int unknown = position - state.position();
    if (unknown != 0 && !(unknown == 1 && tokenFrom >= 0)) {
      throw new IllegalStateException(
          "the token at %d is to be drawn, but %d are known".formatted(position, state.position()));
    }
    TokenCounts counts = state.counts();
    for (int i = 0; i < counts.size(); i++) {
      seen.add(counts.token(i));
      seen.add(counts.count(i));
    }
    return unknown == 1 ? tokenFrom : -1;
  }

  /** Whether the device, which keeps them too, has other draws. */
  boolean changed() {
    return changed;
  }

  /** The device is given {@link #draws}. */
  void sent() {
    changed = false;
  }

  /** The draws of the last step that was planned. */
  MemorySegment draws() {
    return table.asSlice(0, rows * SamplingKernels.DRAW_BYTES);
  }

  /** Whether a row wants log-probabilities. */
  boolean logprobs() {
    return (any & LOGPROBS) != 0;
  }

  /**
   * Rows of which the host must know more than which token: those that want log-probabilities, and
   * those whose later draws depend on it ({@link SamplingParams#hasPenalties}); null elsewhere, and
   * empty where there is no such row.
   */
  @Nullable SamplingState[] followed() {
    if ((any & (HISTORY | LOGPROBS)) == 0) {
      return new SamplingState[0];
    }
    @Nullable SamplingState[] followed = new SamplingState[rows];
    for (int row = 0; row < rows; row++) {
      followed[row] = (changes[row] & (HISTORY | LOGPROBS)) == 0 ? null : states[row];
    }
    return followed;
  }
}
