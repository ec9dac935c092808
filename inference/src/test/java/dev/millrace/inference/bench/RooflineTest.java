package dev.millrace.inference.bench;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.checkpoint.BlockConfig;
import dev.millrace.inference.checkpoint.BlockConfig.Attention;
import dev.millrace.inference.checkpoint.BlockConfig.FeedForward;
import dev.millrace.inference.checkpoint.ModelConfig;
import dev.millrace.inference.checkpoint.QuantizationConfig;
import dev.millrace.inference.checkpoint.RopeConfig;
import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.inference.engine.Batch;
import dev.millrace.inference.model.Footprint;
import java.util.List;
import org.assertj.core.data.Offset;
import org.junit.jupiter.api.Test;

class RooflineTest {
  private static final Offset<Double> EXACT = Offset.offset(1e-6);

  /** Two blocks of which one attends: 2 heads of 4 numbers, one KV head; 1,000 body weights. */
  private static final Roofline ROOFLINE =
      new Roofline(
          new ModelConfig(
              "DeciLMForCausalLM",
              50,
              8,
              2,
              4,
              1024,
              1e-5f,
              false,
              new RopeConfig.Plain(10_000),
              List.of(
                  new BlockConfig(new Attention.Heads(1, false), new FeedForward.Absent()),
                  new BlockConfig(new Attention.Linear(), new FeedForward.Absent())),
              new ModelConfig.SpecialTokens(-1, List.of()),
              QuantizationConfig.NONE),
          new Footprint(2000, 1000, 800, 400, 32, WeightFormat.BF16));

  /** Sequences of so many query tokens, up to so many in all; all of them have logits. */
  private static Batch batch(int[][] queriesAndContexts) {
    Batch batch = new Batch(queriesAndContexts.length, 100, 1);
    for (int[] sequence : queriesAndContexts) {
      int i = batch.sequences++;
      batch.tokenCount += sequence[0];
      batch.queryStart[i + 1] = batch.tokenCount;
      batch.contextLength[i] = sequence[1];
    }
    batch.logitCount = batch.sequences;
    return batch;
  }

  @Test
  void shouldCountADecodeStep() {
    Roofline.Work work = ROOFLINE.of(batch(new int[][] {{1, 10}, {1, 20}}));
    // Body, output, two embedding rows of 8 bf16; 30 positions read and 2 written.
    assertThat(work.bytes()).isEqualTo(2000 + 800 + 2 * 16 + 32 * 32, EXACT);
    // 4 · 2 heads · 4 numbers in the one layer that attends, 30 positions looked at.
    assertThat(work.flops()).isEqualTo(2 * 1000 * 2 + 2 * 400 * 2 + 32 * 30, EXACT);
  }

  @Test
  void shouldCountWhatEachTokenOfAChunkLooksAt() {
    Batch batch = batch(new int[][] {{3, 7}});
    batch.logitCount = 0;
    Roofline.Work work = ROOFLINE.of(batch);
    assertThat(work.bytes()).isEqualTo(2000 + 3 * 16 + (7 + 3) * 32, EXACT);
    // Tokens at positions 4, 5, 6 look at 5, 6 and 7 positions.
    assertThat(work.flops()).isEqualTo(2 * 1000 * 3 + 32 * (5 + 6 + 7), EXACT);
  }

  @Test
  void shouldTakeWhicheverIsLonger() {
    Roofline.Work work = new Roofline.Work(1000, 5000);
    assertThat(work.seconds(100, 1000)).isEqualTo(10, EXACT);
    assertThat(work.seconds(1000, 1000)).isEqualTo(5, EXACT);
  }
}
