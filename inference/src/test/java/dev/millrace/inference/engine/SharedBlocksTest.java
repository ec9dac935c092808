package dev.millrace.inference.engine;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.Random;
import org.junit.jupiter.api.Test;

/** When what one sequence computed is there for others. */
class SharedBlocksTest extends EngineFixture {
  private static final int BLOCK = 4;

  /** Each step ends in the round that began it. */
  private Engine engine() {
    info = new Runner.Info(VOCAB, 200, BLOCK, 64, 1);
    runner = new HashRunner(info, config, new Random(1));
    return driven(config);
  }

  @Test
  void shouldShareABlockWithTheStepThatFillsIt() {
    Engine engine = engine();
    Recorder recorder = new Recorder();
    Sequence one = (Sequence) engine.submit(request(greedy(20, true), prompt(5, 1)), recorder);
    engine.round();
    assertThat(one.computed()).isEqualTo(5);
    assertThat(shared(engine, one, 0)).as("the prompt's first block").isTrue();
    assertThat(shared(engine, one, 1)).isFalse();
    rounds(engine, 2);
    assertThat(one.computed()).isEqualTo(7);
    assertThat(shared(engine, one, 1)).as("a block with one token to come").isFalse();
    engine.round();
    assertThat(one.computed()).isEqualTo(8);
    assertThat(shared(engine, one, 1)).as("a block of prompt and answer").isTrue();
  }

  /** Somebody with the same beginning, who comes right after that step, finds both blocks. */
  @Test
  void shouldFindInTheNextStepWhatAStepFilled() {
    Engine engine = engine();
    int[] prompt = prompt(5, 1);
    Recorder first = new Recorder();
    engine.submit(request(greedy(20, true), prompt), first);
    rounds(engine, 4);
    int[] longer = new int[9];
    System.arraycopy(prompt, 0, longer, 0, 5);
    for (int i = 0; i < 4; i++) {
      longer[5 + i] = first.tokens.get(i);
    }
    Recorder second = new Recorder();
    engine.submit(request(greedy(5, true), longer), second);
    engine.round();
    assertThat(second.cached).isEqualTo(8);
  }

  private static boolean shared(Engine engine, Sequence sequence, int index) {
    int[] tokens = engine.blocks().shareableTokens(sequence.blocks[index]);
    if (tokens == null) {
      return false;
    }
    for (int i = 0; i < BLOCK; i++) {
      assertThat(tokens[i]).isEqualTo(sequence.token(index * BLOCK + i));
    }
    return true;
  }
}
