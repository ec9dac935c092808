package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.engine.Batch;
import dev.millrace.kernels.BeginKernels;
import dev.millrace.kernels.SamplingKernels;
import dev.millrace.kernels.Stream;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Steps of a {@link CudaBackend}, one after another: what they read goes to the GPU at their
 * beginning, the tokens that they draw come back at their end. Steps take turns at buffers, so that
 * some may be in flight while the next is prepared. Owns nothing.
 */
final class CudaSteps {
  private final BeginKernels beginnings;
  private final SamplingKernels kernels;
  private final Stream stream;
  private final List<StepBuffer> turns;
  private final DrawTable draws = new DrawTable();
  private final Scratch drawRows;
  private int turn;

  /**
   * @param turns one more than steps in flight
   */
  CudaSteps(
      GpuMemory memory,
      BeginKernels beginnings,
      SamplingKernels kernels,
      Stream stream,
      List<StepBuffer> turns) {
    this.beginnings = beginnings;
    this.kernels = kernels;
    this.stream = stream;
    this.turns = List.copyOf(turns);
    this.drawRows = new Scratch(memory, "how tokens are drawn");
  }

  /** Takes what steps of so many sequences need. */
  void reserve(int sequences) {
    drawRows.of(sequences * SamplingKernels.DRAW_BYTES);
  }

  /** Brings a batch to the device. */
  CudaStep begin(Batch batch, @Nullable CudaSampled previous) {
    return CudaStep.send(batch, nextTurn(), previous);
  }

  /**
   * As above, with arrays that a recorded step reads and that have room for it: one kernel brings
   * them and does what the step left to do before it.
   */
  CudaStep begin(
      Batch batch,
      @Nullable CudaSampled previous,
      DecodeTables tables,
      List<AttentionPlan> plans,
      CudaStep.Left left) {
    StepBuffer buffer = nextTurn();
    CudaStep step = CudaStep.sent(batch, buffer, previous, tables.arrays());
    BeginKernels.Embedding embedding = left.embedding().of(step);
    BeginKernels.Tables written = tables.write(batch, plans, buffer);
    beginnings.begin(written, embedding, left.angles(), tables.rows(), stream);
    return step;
  }

  private StepBuffer nextTurn() {
    turns.get(turn).end();
    turn = (turn + 1) % turns.size();
    StepBuffer buffer = turns.get(turn);
    buffer.begin();
    return buffer;
  }

  /** Draws the tokens of the step that began last. */
  CudaSampled sample(CudaStep s, CudaTensor logits) {
    int rows = s.logitRows();
    int vocab = logits.columns();
    draws.plan(s.batch(), vocab);
    long table = drawRows.of(rows * SamplingKernels.DRAW_BYTES);
    if (draws.changed()) {
      StepBuffer.Region region = s.buffer().reserve(rows * SamplingKernels.DRAW_BYTES);
      region.host().copyFrom(draws.draws());
      region.sendTo(table);
      draws.sent();
    }
    long seen = s.buffer().put(draws.seen.values, draws.seen.count);
    long masked = s.buffer().put(draws.masked.values, draws.masked.count);
    s.buffer().send();
    StepBuffer.Region tokens = s.buffer().reserve((long) rows * Integer.BYTES);
    StepBuffer.Region logprobs =
        draws.logprobs() ? s.buffer().reserve(rows * SamplingKernels.LOGPROBS_BYTES) : null;
    if (rows > 0) {
      kernels.sample(
          logits.address(),
          table,
          seen,
          masked,
          s.sampledBefore(),
          tokens.address(),
          tokens.hostAddress(),
          logprobs == null ? 0 : logprobs.address(),
          rows,
          vocab,
          stream);
      if (logprobs != null) {
        logprobs.fetch();
      }
    }
    s.buffer().mark();
    return new CudaSampled(s.buffer(), tokens, logprobs, draws.followed());
  }
}
