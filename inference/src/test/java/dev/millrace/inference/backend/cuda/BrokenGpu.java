package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.engine.Batch;
import dev.millrace.inference.engine.StepFailedException;
import dev.millrace.inference.model.TestSequence;
import dev.millrace.inference.model.TestSequence.Part;
import dev.millrace.inference.sampling.SamplingState;
import java.nio.file.Path;
import java.util.List;

/**
 * A program that makes a kernel write far outside of its memory, which breaks the GPU for the
 * process, and says what its steps then come to. A process of its own, since nothing can be run on
 * the GPU in it any more.
 *
 * <pre>BrokenGpu CHECKPOINT</pre>
 */
public final class BrokenGpu {
  private static final int[] PROMPT = {3, 1, 4, 1, 5, 9, 2, 6};

  /** The last whose slots are still ints: many gigabytes past the cache's memory. */
  private static final int FAR_BLOCK = Integer.MAX_VALUE / CudaKvCache.BLOCK - 1;

  private BrokenGpu() {}

  /** See the class. */
  public static void main(String[] args) {
    CudaRunner.Options options = new CudaRunner.Options(Gpu.options(), 8, 64, 4, null, false, true);
    try (CudaRunner runner = CudaRunner.open(Path.of(args[0]), options)) {
      for (int block : new int[] {1, FAR_BLOCK, 1}) {
        System.out.println("block " + block + ": " + step(runner, block));
      }
    }
    System.out.println("closed");
  }

  private static String step(CudaRunner runner, int block) {
    Part part = new Part(new TestSequence(PROMPT, new int[] {block}), 0, PROMPT.length);
    Batch batch = TestSequence.lastLogits(List.of(part));
    batch.sampling[0] = new SamplingState(SamplingParams.greedy(8), PROMPT, new int[0], new int[0]);
    try {
      return "token " + (runner.submit(batch).await().tokens()[0] >= 0 ? "drawn" : "missing");
    } catch (StepFailedException e) {
      return (e.fatal() ? "fatal: " : "failed: ") + e.getMessage();
    }
  }
}
