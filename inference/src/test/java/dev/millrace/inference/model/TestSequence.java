package dev.millrace.inference.model;

import dev.millrace.inference.engine.Batch;
import java.util.List;
import java.util.Random;
import java.util.stream.IntStream;

/** A sequence of known tokens with KV blocks of its own, and batches made of such. */
public final class TestSequence {
  private static final int BLOCK = 16;

  final int[] tokens;
  final int[] blocks;

  public TestSequence(int[] tokens, int[] blocks) {
    this.tokens = tokens;
    this.blocks = blocks;
  }

  /** As many of the blocks as the tokens need, in an order that hides no mistake. */
  public static TestSequence shuffled(int[] tokens, int firstBlock, long seed) {
    int count = Math.ceilDiv(tokens.length, BLOCK);
    int[] blocks = IntStream.range(firstBlock, firstBlock + count).toArray();
    Random random = new Random(seed);
    for (int i = count - 1; i > 0; i--) {
      int j = random.nextInt(i + 1);
      int swap = blocks[i];
      blocks[i] = blocks[j];
      blocks[j] = swap;
    }
    return new TestSequence(tokens, blocks);
  }

  public int length() {
    return tokens.length;
  }

  /** Positions [from, to) of a sequence. */
  public record Part(TestSequence sequence, int from, int to) {}

  /** As {@link #batch}, with logits of each part's last token alone. */
  public static Batch lastLogits(List<Part> parts) {
    Batch batch = batch(parts);
    batch.logitCount = parts.size();
    for (int s = 0; s < parts.size(); s++) {
      batch.logitRows[s] = batch.queryStart[s + 1] - 1;
    }
    return batch;
  }

  /** One step over the parts, with logits of every token. */
  public static Batch batch(List<Part> parts) {
    int tokens = parts.stream().mapToInt(p -> p.to - p.from).sum();
    int maxBlocks = parts.stream().mapToInt(p -> p.sequence.blocks.length).max().orElseThrow();
    Batch batch = new Batch(parts.size(), tokens, maxBlocks);
    batch.logitRows = IntStream.range(0, tokens).toArray();
    batch.logitCount = tokens;
    batch.tokenCount = tokens;
    batch.sequences = parts.size();
    int t = 0;
    for (int s = 0; s < parts.size(); s++) {
      Part part = parts.get(s);
      for (int p = part.from; p < part.to; p++) {
        batch.tokens[t] = part.sequence.tokens[p];
        batch.tokenFrom[t] = -1;
        batch.positions[t] = p;
        batch.slots[t] = part.sequence.blocks[p / BLOCK] * BLOCK + p % BLOCK;
        t++;
      }
      batch.queryStart[s + 1] = t;
      batch.contextLength[s] = part.to;
      int used = Math.ceilDiv(part.to, BLOCK);
      System.arraycopy(part.sequence.blocks, 0, batch.blockTable, s * maxBlocks, used);
    }
    return batch;
  }
}
