package dev.millrace.inference.backend.cuda;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.backend.DeviceException;
import dev.millrace.inference.engine.Batch;
import dev.millrace.inference.engine.StepFailedException;
import dev.millrace.inference.engine.StepHandle;
import dev.millrace.inference.model.TestSequence;
import dev.millrace.inference.model.TestSequence.Part;
import dev.millrace.inference.sampling.SamplingState;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

@SuppressWarnings("NullAway.Init")
class CudaRunnerTest {
  private static final Path NAS = Path.of("src/test/resources/checkpoints/nemotron-nas-bf16");
  private static final int[] PROMPT = {3, 1, 4, 1, 5, 9, 2, 6};

  /** What it draws depends on what it drew. */
  private static final SamplingParams PENALISED =
      new SamplingParams(0, 1, 0, 0, 1.3f, 0, 0, 0, 8, 0, List.of(), false, -1);

  private CudaRunner runner;
  private final TestSequence sequence =
      TestSequence.shuffled(Arrays.copyOf(PROMPT, PROMPT.length + 8), 1, 1);
  private final SamplingState state = new SamplingState(PENALISED, PROMPT, new int[0], new int[0]);

  @BeforeEach
  void open() {
    Gpu.require();
    runner = CudaRunner.open(NAS, options(8));
  }

  private static CudaRunner.Options options(int kvBlocks) {
    return new CudaRunner.Options(Gpu.options(), kvBlocks, 64, 4, null, true, true);
  }

  @AfterEach
  void close() {
    if (runner != null) {
      runner.close();
    }
  }

  private Batch batch(int from, int to, boolean fromBefore) {
    Batch batch = TestSequence.lastLogits(List.of(new Part(sequence, from, to)));
    batch.sampling[0] = state;
    if (fromBefore) {
      batch.tokens[0] = -7;
      batch.tokenFrom[0] = 0;
    }
    return batch;
  }

  @Test
  void shouldSayWhatItHolds() {
    assertThat(runner.info().vocabSize()).isEqualTo(80);
    assertThat(runner.info().blocks()).isEqualTo(8);
    assertThat(runner.info().maxContext()).isEqualTo(128);
  }

  @Test
  void shouldFillTheMemoryWithBlocksByDefault() {
    runner.close();
    runner = CudaRunner.open(NAS, options(0));
    assertThat(runner.info().blocks()).isGreaterThan(10_000);
    assertThat(runner.info().maxContext()).isEqualTo(512);
  }

  @Test
  void shouldSayThatTheKvCacheDoesNotFit() {
    runner.close();
    assertThatThrownBy(() -> CudaRunner.open(NAS, options(100_000_000)))
        .isInstanceOf(DeviceException.class)
        .hasMessageContaining("100000000 blocks")
        .hasMessageContaining("free");
    runner = CudaRunner.open(NAS, options(8));
  }

  @Test
  void shouldTakeTokensFromAStepThatStillRuns() throws StepFailedException {
    StepHandle first = runner.submit(batch(0, 8, false));
    StepHandle second = runner.submit(batch(8, 9, true));
    int firstToken = first.await().tokens()[0];
    StepHandle third = runner.submit(batch(9, 10, true));
    int secondToken = second.await().tokens()[0];
    int thirdToken = third.await().tokens()[0];
    assertThat(state.generated()).isEqualTo(3);

    // The same with every token known.
    int[] known = Arrays.copyOf(PROMPT, PROMPT.length + 2);
    known[8] = firstToken;
    known[9] = secondToken;
    Batch all =
        TestSequence.lastLogits(List.of(new Part(TestSequence.shuffled(known, 3, 9), 0, 10)));
    all.sampling[0] = new SamplingState(PENALISED, known, new int[0], new int[0]);
    assertThat(runner.submit(all).await().tokens()).containsExactly(thirdToken);
  }

  @Test
  void shouldRefuseMoreStepsThanItsDepth() throws StepFailedException {
    StepHandle first = runner.submit(batch(0, 8, false));
    StepHandle second = runner.submit(batch(8, 9, true));
    assertThatThrownBy(() -> runner.submit(batch(9, 10, true)))
        .isInstanceOf(IllegalStateException.class)
        .hasMessageContaining("2 steps are in flight");
    first.await();
    second.await();
  }

  @Test
  void shouldFailAStepAloneThatCannotBeComputed() throws StepFailedException {
    Batch broken = batch(0, 8, false);
    broken.tokens[3] = 80;
    StepHandle first = runner.submit(broken);
    StepHandle dependent = runner.submit(batch(8, 9, true));
    assertThatThrownBy(first::await)
        .isInstanceOfSatisfying(StepFailedException.class, e -> assertThat(e.fatal()).isFalse())
        .hasMessageContaining("80");
    assertThatThrownBy(dependent::await)
        .isInstanceOf(StepFailedException.class)
        .hasMessageContaining("no result");
    assertThat(state.generated()).isZero();
    assertThat(runner.submit(batch(0, 8, false)).await().tokens()[0]).isBetween(0, 79);
  }
}
