package dev.millrace.inference.backend.cuda;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.api.TokenLogprob;
import dev.millrace.inference.backend.KvFormat;
import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.inference.engine.Batch;
import dev.millrace.inference.engine.StepFailedException;
import dev.millrace.inference.engine.StepHandle;
import dev.millrace.inference.model.ModelSource;
import dev.millrace.inference.sampling.SamplingState;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Deque;
import java.util.List;
import java.util.Objects;
import java.util.Random;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * The same steps by graphs and kernel by kernel. Sequences join and end, take part in steps or not,
 * and reuse the blocks of others; some begin with up to a hundred blocks that they share. The
 * library may add in another order where a graph has more rows, so that a near tie may go either
 * way; where results are invariant nothing may differ.
 */
@SuppressWarnings("NullAway.Init")
class DecodeGraphsTest {
  private static final long SEED = 11;
  private static final int STEPS = 60;
  private static final int MOST_SEQUENCES = 40;
  private static final int BLOCKS = 1000;
  private static final int BLOCK = CudaRunner.BLOCK_SIZE;
  private static final int SHARED = 8;
  private static final int TOKENS = SHARED * BLOCK;
  private static final int MOST_JOIN = 8;
  private static final int MOST_PROMPT = (TOKENS - MOST_SEQUENCES) / MOST_JOIN + 1;
  private static final int VOCAB = 96;
  private static final double TOLERANCE = 0.02;
  private static final String CONFIG =
      """
      {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 96,
       "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 2,
       "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": %d, "hidden_act": "silu",
       "max_position_embeddings": 4096, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
       "tie_word_embeddings": false, "torch_dtype": "bfloat16", "bos_token_id": 1,
       "eos_token_id": 2}
      """;

  @TempDir private Path folder;
  private boolean invariant;
  private int headDim = 32;
  private int steps = STEPS;
  private final Random random = new Random(SEED);
  private final Deque<Integer> free = new ArrayDeque<>();

  /** A sequence as both runners have it. */
  private final class Member {
    final List<Integer> blocks = new ArrayList<>();
    final List<SamplingState> states = new ArrayList<>();
    final int[] prompt;
    final int shared = random.nextInt(5) == 0 ? random.nextInt(100) : random.nextInt(3);
    int computed = shared * BLOCK;
    int length;
    int lastToken;
    int drawn; // tokens that were awaited
    int rowBefore = -1;
    boolean dead;

    Member() {
      prompt = random.ints(shared * BLOCK + 1 + random.nextInt(MOST_PROMPT), 0, VOCAB).toArray();
      for (int i = 0; i < shared; i++) {
        blocks.add(random.nextInt(SHARED));
      }
      length = prompt.length;
      float penalty = random.nextBoolean() ? 1 : 1.3f;
      SamplingParams params =
          new SamplingParams(0, 1, 0, 0, penalty, 0, 0, 0, 1_000, 0, List.of(), true, 1);
      for (int i = 0; i < 2; i++) {
        states.add(new SamplingState(params, prompt, new int[0], new int[0]));
      }
    }

    int block(int position) {
      while (blocks.size() <= position / BLOCK) {
        blocks.add(free.removeFirst());
      }
      return blocks.get(position / BLOCK);
    }

    void end() {
      blocks.subList(shared, blocks.size()).forEach(free::addLast);
    }
  }

  @Test
  void shouldComputeTheSameAsKernelByKernel() throws Exception {
    check(WeightFormat.BF16, KvFormat.NATIVE);
  }

  /** Such heads have kernels for whole steps of up to eight rows. */
  @Test
  void shouldComputeTheSameWhereStepsOfFewRowsAreOneKernel() throws Exception {
    Gpu.require();
    headDim = 64;
    steps = Gpu.emulated() ? STEPS / 3 : STEPS;
    check(WeightFormat.BF16, KvFormat.FP8);
  }

  @Test
  void shouldComputeTheSameInFp8() throws Exception {
    Gpu.requireFp8();
    check(WeightFormat.F8_E4M3, KvFormat.FP8);
  }

  @Test
  void shouldComputeTheSameOverAnFp8CacheOfWideHeads() throws Exception {
    Gpu.requireFp8();
    headDim = 128;
    steps = fewerWhereEmulated();
    check(WeightFormat.BF16, KvFormat.FP8);
  }

  @Test
  void shouldComputeTheSameBitsWhereResultsAreInvariant() throws Exception {
    checkInvariant(WeightFormat.BF16, KvFormat.NATIVE);
  }

  @Test
  void shouldComputeTheSameBitsInFp8WhereResultsAreInvariant() throws Exception {
    Gpu.requireFp8();
    checkInvariant(WeightFormat.F8_E4M3, KvFormat.FP8);
  }

  @Test
  void shouldHaveFewRowsToSpare() {
    assertThat(DecodeGraphs.ladder(1)).containsExactly(1);
    assertThat(DecodeGraphs.ladder(20)).containsExactly(1, 2, 3, 4, 8, 16, 20);
    List<Integer> ladder = DecodeGraphs.ladder(2048);
    assertThat(ladder).contains(32, 40, 256, 272, 512, 544, 2048).doesNotHaveDuplicates();
    assertThat(ladder).isSorted();
    for (int i = 4; i < ladder.size(); i++) {
      assertThat(ladder.get(i) - ladder.get(i - 1)).isLessThanOrEqualTo(32);
    }
  }

  private void checkInvariant(WeightFormat weights, KvFormat kv) throws Exception {
    Gpu.require();
    invariant = true;
    steps = fewerWhereEmulated();
    check(weights, kv);
  }

  private static int fewerWhereEmulated() {
    return Gpu.emulated() ? STEPS / 6 : STEPS;
  }

  private void check(WeightFormat weights, KvFormat kv) throws Exception {
    Gpu.require();
    try (CudaRunner graphs = open(weights, kv, true);
        CudaRunner plain = open(weights, kv, false)) {
      compare(graphs, plain);
      assertThat(plain.graphSteps()).isZero();
      // Steps with prompts, and with more blocks than there is room for, are none.
      assertThat(graphs.graphSteps()).isBetween((long) steps / 3, (long) steps - 1);
    }
  }

  private CudaRunner open(WeightFormat weights, KvFormat kv, boolean graphs) throws IOException {
    Path config = Files.writeString(folder.resolve("config.json"), CONFIG.formatted(headDim));
    return CudaRunner.open(
        new ModelSource.Random(config, weights, SEED),
        new CudaRunner.Options(
            Gpu.options(invariant), BLOCKS, TOKENS, MOST_SEQUENCES, kv, true, graphs));
  }

  private void compare(CudaRunner graphs, CudaRunner plain) throws StepFailedException {
    fillShared(graphs, plain);
    IntStream.range(SHARED, BLOCKS).boxed().forEach(free::addLast);
    List<Member> all = new ArrayList<>();
    int rows = 0;
    int apart = 0;
    List<Member> before = List.of();
    StepHandle[] handlesBefore = new StepHandle[0];
    for (int step = 0; step < steps; step++) {
      leave(all);
      join(all, step);
      List<Member> members = some(all);
      // Half of the steps take their tokens from a step that has not been awaited.
      boolean ahead = handlesBefore.length > 0 && random.nextBoolean();
      if (!ahead && handlesBefore.length > 0) {
        apart += await(before, handlesBefore);
        rows += before.size();
        handlesBefore = new StepHandle[0];
      }
      StepHandle[] handles = {graphs.submit(batch(members, 0)), plain.submit(batch(members, 1))};
      if (handlesBefore.length > 0) {
        apart += await(before, handlesBefore);
        rows += before.size();
      }
      for (int row = 0; row < members.size(); row++) {
        Member member = members.get(row);
        member.computed = member.length++;
        member.rowBefore = row;
      }
      for (Member member : all) {
        if (!members.contains(member)) {
          member.rowBefore = -1;
        }
      }
      before = List.copyOf(members);
      handlesBefore = handles;
    }
    apart += await(before, handlesBefore);
    rows += before.size();
    assertThat(apart)
        .as("rows of %d that drew another token", rows)
        .isLessThanOrEqualTo(invariant ? 0 : rows / 50);
  }

  /** Blocks that any sequence may begin with. */
  private void fillShared(CudaRunner graphs, CudaRunner plain) throws StepFailedException {
    Batch batch = new Batch(1, TOKENS, SHARED);
    batch.sequences = 1;
    batch.tokenCount = TOKENS;
    batch.queryStart[1] = batch.tokenCount;
    batch.contextLength[0] = batch.tokenCount;
    batch.blockTable = IntStream.range(0, SHARED).toArray();
    for (int t = 0; t < batch.tokenCount; t++) {
      batch.tokens[t] = random.nextInt(VOCAB);
      batch.tokenFrom[t] = -1;
      batch.positions[t] = t;
      batch.slots[t] = t;
    }
    graphs.submit(batch).await();
    plain.submit(batch).await();
  }

  private void leave(List<Member> all) {
    all.removeIf(
        member -> {
          boolean ends = member.dead || random.nextInt(16) == 0 || free.size() < MOST_SEQUENCES;
          if (ends) {
            member.end();
          }
          return ends;
        });
  }

  /** Not in every step: those with prompts are no graphs. */
  private void join(List<Member> all, int step) {
    if (all.isEmpty() || step % 2 == 0) {
      int more = 1 + random.nextInt(MOST_JOIN);
      for (int i = 0; i < more && all.size() < MOST_SEQUENCES; i++) {
        all.add(new Member());
      }
    }
  }

  /** Any of them, as many as a step takes; often only such as have begun. */
  private List<Member> some(List<Member> all) {
    List<Member> begun =
        all.stream().filter(m -> m.computed > m.shared * BLOCK).collect(Collectors.toList());
    List<Member> from = begun.isEmpty() || random.nextInt(3) == 0 ? new ArrayList<>(all) : begun;
    Collections.shuffle(from, random);
    List<Member> some = new ArrayList<>();
    int most = 1 + random.nextInt(from.size());
    int tokens = 0;
    for (Member member : from.subList(0, most)) {
      tokens += member.length - member.computed;
      if (tokens <= TOKENS) {
        some.add(member);
      }
    }
    return some;
  }

  private Batch batch(List<Member> members, int runner) {
    int tokens = members.stream().mapToInt(m -> m.length - m.computed).sum();
    int maxBlocks = members.stream().mapToInt(m -> m.length / BLOCK + 1).max().orElseThrow();
    Batch batch = new Batch(members.size(), tokens, maxBlocks);
    batch.sequences = members.size();
    batch.tokenCount = tokens;
    batch.logitCount = members.size();
    int t = 0;
    for (int s = 0; s < members.size(); s++) {
      Member member = members.get(s);
      for (int p = member.computed; p < member.length; p++, t++) {
        boolean known = p < member.prompt.length;
        boolean fromBefore = !known && member.prompt.length + member.drawn == p;
        batch.tokenFrom[t] = fromBefore ? member.rowBefore : -1;
        batch.tokens[t] = known ? member.prompt[p] : fromBefore ? 0 : member.lastToken;
        batch.positions[t] = p;
        batch.slots[t] = member.block(p) * BLOCK + p % BLOCK;
      }
      batch.queryStart[s + 1] = t;
      batch.contextLength[s] = member.length;
      for (int b = 0; b <= (member.length - 1) / BLOCK; b++) {
        batch.blockTable[s * maxBlocks + b] = member.blocks.get(b);
      }
      batch.logitRows[s] = t - 1;
      batch.sampling[s] = member.states.get(runner);
    }
    return batch;
  }

  /** Rows that drew another token; their sequences end. */
  private int await(List<Member> members, StepHandle[] handles) throws StepFailedException {
    StepHandle.Result graphs = handles[0].await();
    StepHandle.Result plain = handles[1].await();
    int apart = 0;
    for (int row = 0; row < members.size(); row++) {
      Member member = members.get(row);
      member.lastToken = graphs.tokens()[row];
      member.drawn++;
      if (!member.dead) {
        TokenLogprob ours = Objects.requireNonNull(graphs.logprobs()[row]);
        TokenLogprob theirs = Objects.requireNonNull(plain.logprobs()[row]);
        assertThat((double) ours.logprob())
            .as("seed %d, row %d of %d", SEED, row, members.size())
            .isCloseTo(
                theirs.logprob(), org.assertj.core.data.Offset.offset(invariant ? 0 : TOLERANCE));
        if (graphs.tokens()[row] != plain.tokens()[row]) {
          member.dead = true;
          apart++;
        }
      }
    }
    return apart;
  }
}
