package dev.millrace.inference.backend.cpu;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.checkpoint.InvalidCheckpointException;
import dev.millrace.inference.engine.Batch;
import dev.millrace.inference.engine.StepFailedException;
import dev.millrace.inference.engine.StepHandle;
import dev.millrace.inference.model.TestSequence;
import dev.millrace.inference.model.TestSequence.Part;
import dev.millrace.inference.sampling.SamplingState;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class CpuRunnerTest {
  private static final Path NAS = Path.of("src/test/resources/checkpoints/nemotron-nas-bf16");
  private static final int[] PROMPT = {3, 1, 4, 1, 5, 9, 2, 6};

  private final CpuRunner runner = CpuRunner.open(NAS, new CpuRunner.Options(2, 8, false));
  private final TestSequence sequence =
      TestSequence.shuffled(Arrays.copyOf(PROMPT, PROMPT.length + 8), 1, 1);
  private final SamplingState state =
      new SamplingState(SamplingParams.greedy(8), PROMPT, new int[0], new int[0]);

  @AfterEach
  void close() {
    runner.close();
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
    assertThat(runner.config().tokens().eosIds()).containsExactly(2, 1);
  }

  @Test
  void shouldFindRoomForEightLongSequencesByDefault() {
    try (CpuRunner roomy = CpuRunner.open(NAS, new CpuRunner.Options(1, 0, false))) {
      assertThat(roomy.info().blocks()).isEqualTo(8 * 512 / 16);
      assertThat(roomy.info().maxContext()).isEqualTo(512);
    }
  }

  @Test
  void shouldSayThatTheKvCacheDoesNotFit() {
    assertThatThrownBy(() -> CpuRunner.open(NAS, new CpuRunner.Options(1, 200_000_000, false)))
        .isInstanceOf(IllegalStateException.class)
        .hasMessageContaining("200000000 KV blocks need")
        .hasMessageContaining("use fewer blocks");
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
    all.sampling[0] = new SamplingState(SamplingParams.greedy(8), known, new int[0], new int[0]);
    assertThat(runner.submit(all).await().tokens()).containsExactly(thirdToken);
  }

  @Test
  void shouldRefuseMoreStepsThanItsDepth() {
    // Long enough that the first has not ended when the third comes.
    TestSequence longest = TestSequence.shuffled(new int[112], 1, 1);
    List<StepHandle> handles = new ArrayList<>();
    assertThatThrownBy(
            () -> {
              for (int i = 0; i < 1000; i++) {
                Batch batch = TestSequence.lastLogits(List.of(new Part(longest, 0, 112)));
                batch.sampling[0] = state;
                handles.add(runner.submit(batch));
              }
            })
        .isInstanceOf(IllegalStateException.class)
        .hasMessageContaining("2 steps are in flight");
    assertThat(handles).hasSizeGreaterThanOrEqualTo(2);
  }

  @Test
  void shouldFailAStepAloneThatCannotBeComputed() throws StepFailedException {
    // A result that the dependent step must not mistake for its own.
    Batch sound = batch(0, 8, false);
    sound.sampling[0] = new SamplingState(SamplingParams.greedy(8), PROMPT, new int[0], new int[0]);
    runner.submit(sound).await();
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

  @Test
  void shouldWarmUpToTheSameAnswers() throws StepFailedException {
    int cold = runner.submit(batch(0, 8, false)).await().tokens()[0];
    SamplingState again =
        new SamplingState(SamplingParams.greedy(8), PROMPT, new int[0], new int[0]);
    try (CpuRunner warm = CpuRunner.open(NAS, new CpuRunner.Options(2, 8, true))) {
      Batch batch = TestSequence.lastLogits(List.of(new Part(sequence, 0, 8)));
      batch.sampling[0] = again;
      assertThat(warm.submit(batch).await().tokens()[0]).isEqualTo(cold);
    }
  }

  @Test
  void shouldRefuseAFolderThatIsNoCheckpoint(@TempDir Path empty) {
    assertThatThrownBy(() -> CpuRunner.open(empty, new CpuRunner.Options(1, 1, false)))
        .isInstanceOf(InvalidCheckpointException.class)
        .hasMessageContaining(empty.toString());
  }
}
