package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.api.TokenLogprob;
import dev.millrace.inference.backend.Sampled;
import dev.millrace.inference.sampling.Sampler;
import dev.millrace.inference.sampling.SamplingState;
import dev.millrace.kernels.SamplingKernels;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import org.jspecify.annotations.Nullable;

/**
 * Tokens that the GPU drew. They stay there for the next step; the host has them once they were
 * waited for.
 */
final class CudaSampled implements Sampled {
  private final StepBuffer buffer;
  private final StepBuffer.Region drawn;
  private final StepBuffer.@Nullable Region logprobRows;
  private final @Nullable SamplingState[] states;
  private int @Nullable [] tokens;
  private @Nullable TokenLogprob @Nullable [] logprobs;

  /**
   * @param buffer of the step; it was marked when the regions were fetched
   * @param states of rows that have penalties, which get their token when the host has it, or want
   *     log-probabilities; null at the others, empty where all are
   */
  CudaSampled(
      StepBuffer buffer,
      StepBuffer.Region drawn,
      StepBuffer.@Nullable Region logprobRows,
      @Nullable SamplingState[] states) {
    this.buffer = buffer;
    this.drawn = drawn;
    this.logprobRows = logprobRows;
    this.states = states;
  }

  /** Of the tokens on the device. */
  long address() {
    return drawn.address();
  }

  @Override
  public int[] tokens() {
    int[] known = tokens;
    if (known == null) {
      buffer.await();
      MemorySegment host = drawn.host();
      known = new int[(int) (host.byteSize() / Integer.BYTES)];
      MemorySegment.copy(host, ValueLayout.JAVA_INT, 0, known, 0, known.length);
      tokens = known;
      for (int row = 0; row < states.length; row++) {
        SamplingState state = states[row];
        if (state != null && state.params().hasPenalties()) {
          state.append(known[row]);
        }
      }
    }
    return known;
  }

  private @Nullable TokenLogprob[] readLogprobs(int[] drawnTokens) {
    @Nullable TokenLogprob[] read = new TokenLogprob[drawnTokens.length];
    if (logprobRows != null) {
      for (int row = 0; row < states.length; row++) {
        SamplingState state = states[row];
        if (state != null && state.params().logprobs() >= 0 && drawnTokens[row] != Sampler.FAILED) {
          SamplingKernels.Logprobs l =
              SamplingKernels.Logprobs.read(
                  logprobRows.host(), row * SamplingKernels.LOGPROBS_BYTES);
          read[row] = new TokenLogprob(drawnTokens[row], l.chosen(), l.tokens(), l.values());
        }
      }
    }
    return read;
  }

  @Override
  public @Nullable TokenLogprob[] logprobs() {
    @Nullable TokenLogprob[] known = logprobs;
    if (known == null) {
      known = readLogprobs(tokens());
      logprobs = known;
    }
    return known;
  }
}
