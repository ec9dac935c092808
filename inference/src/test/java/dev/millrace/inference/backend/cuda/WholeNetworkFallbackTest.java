package dev.millrace.inference.backend.cuda;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.backend.KvFormat;
import dev.millrace.inference.backend.Tensor;
import dev.millrace.inference.backend.UniformNetwork;
import dev.millrace.inference.backend.WholeNetwork;
import dev.millrace.inference.checkpoint.Quantization;
import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.inference.engine.Batch;
import dev.millrace.inference.model.Model;
import dev.millrace.inference.model.ModelSource;
import dev.millrace.inference.model.Models;
import dev.millrace.inference.model.TestSequence;
import dev.millrace.inference.model.TestSequence.Part;
import dev.millrace.inference.sampling.SamplingState;
import dev.millrace.kernels.Device;
import dev.millrace.kernels.Stream;
import dev.millrace.kernels.WholeStepKernels;
import java.io.IOException;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.function.BiFunction;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** What becomes of decode steps that could be one kernel where something stands against it. */
class WholeNetworkFallbackTest {
  private static final long SEED = 11;
  private static final int MORE_THAN_ANY_GPU_HAS = 1000;
  private static final SamplingParams GREEDY =
      new SamplingParams(0, 1, 0, 0, 1, 0, 0, 0, 9, 0, List.of(), false, -1);

  @TempDir private Path folder;

  @BeforeEach
  void require() {
    Gpu.require();
    try (Device device = Device.open(0)) {
      assumeTrue(device.capability() == 90, "this GPU has no kernels for whole steps");
    }
  }

  /** What a network as one kernel is made with, besides the backend's own. */
  private static final class Parts implements AutoCloseable {
    final Device device = Device.open(0);
    final Stream stream = new Stream();
    final GpuMemory memory = new GpuMemory(device, 0.05, stream);

    WholeStepKernels kernels(int multiprocessors) {
      return new WholeStepKernels(multiprocessors, device.sharedBytes());
    }

    @Override
    public void close() {
      memory.close();
      stream.close();
      device.close();
    }
  }

  private record Cache(CudaKvCache cache) implements AutoCloseable {
    @Override
    public void close() {
      cache.free();
    }
  }

  @Test
  void shouldGoOnLayerByLayerOnceTheDriverRefusesAStep() throws IOException {
    try (CudaBackend backend = Gpu.open();
        Parts parts = new Parts();
        WholeStepKernels kernels = parts.kernels(MORE_THAN_ANY_GPU_HAS)) {
      List<Boolean> took = new ArrayList<>();
      BiFunction<UniformNetwork, CudaKvCache, @Nullable WholeNetwork> refused =
          (network, cache) -> {
            CudaWholeNetwork made = backend.whole(network, cache, 8, parts.memory, kernels);
            assertThat(made).isNotNull();
            return (step, state, logits) -> {
              took.add(made.run(step, state, logits));
              return took.getLast();
            };
          };
      float[] expected = logits(backend, WeightFormat.BF16, (network, cache) -> null);
      assertThat(logits(backend, WeightFormat.BF16, refused)).isEqualTo(expected);
      assertThat(took).as("asked in the two steps").containsExactly(false, false);
    }
  }

  /** The first steps of which the driver hears of it are graphs, or would be. */
  @Test
  void shouldKeepTheGraphsOfLargerStepsOnceTheDriverRefusesAStep() throws IOException {
    try (CudaBackend backend = Gpu.open();
        Parts parts = new Parts();
        WholeStepKernels kernels = parts.kernels(MORE_THAN_ANY_GPU_HAS);
        Model model =
            model(
                backend,
                WeightFormat.BF16,
                (network, cache) -> backend.whole(network, cache, 2, parts.memory, kernels));
        Cache owned = new Cache((CudaKvCache) model.kvCache(8, KvFormat.NATIVE))) {
      model.reserve(16, 4);
      backend.sample(backend.begin(decode(4), null), forward(model, backend, owned, 4));
      try (DecodeGraphs graphs = new DecodeGraphs(backend, model, owned.cache, 4096)) {
        graphs.record(4);
        assertThat(graphs.run(decode(1), null)).as("refused").isNull();
        CudaSampled sampled = graphs.run(decode(1), null);
        assertThat(sampled).as("by a graph of more rows").isNotNull();
        assertThat(graphs.launched()).isEqualTo(1);
        assertThat(sampled.tokens())
            .containsExactly(
                backend
                    .sample(backend.begin(decode(1), null), forward(model, backend, owned, 1))
                    .tokens());
      }
    }
  }

  private static Tensor forward(Model model, CudaBackend backend, Cache cache, int rows) {
    return model.forward(backend.begin(decode(rows), null), cache.cache);
  }

  /** The first token of so many sequences, whose next is drawn. */
  private static Batch decode(int rows) {
    List<Part> parts = new ArrayList<>();
    for (int row = 0; row < rows; row++) {
      parts.add(new Part(TestSequence.shuffled(new int[] {row + 1}, row, SEED), 0, 1));
    }
    Batch batch = TestSequence.lastLogits(parts);
    for (int row = 0; row < rows; row++) {
      batch.sampling[row] = new SamplingState(GREEDY, new int[] {row + 1}, new int[0], new int[0]);
    }
    return batch;
  }

  @Test
  void shouldGoLayerByLayerWhereThereIsNoRoom() throws IOException {
    try (CudaBackend backend = Gpu.open();
        Parts parts = new Parts();
        WholeStepKernels kernels = parts.kernels(2)) {
      List<Boolean> offered = new ArrayList<>();
      logits(
          backend,
          WeightFormat.BF16,
          (network, cache) -> {
            for (boolean room : new boolean[] {true, false}) {
              if (!room) {
                parts.memory.allocate("all that is left", parts.memory.largestFree());
              }
              offered.add(backend.whole(network, cache, 8, parts.memory, kernels) != null);
            }
            return null;
          });
      assertThat(offered).containsExactly(true, false);
    }
  }

  @Test
  void shouldNotBeOfferedWhereReadersOfOneInputScaleItDifferently() throws IOException {
    Gpu.requireFp8();
    try (CudaBackend backend = Gpu.open();
        Parts parts = new Parts();
        WholeStepKernels kernels = parts.kernels(2)) {
      List<Boolean> offered = new ArrayList<>();
      logits(
          backend,
          WeightFormat.F8_E4M3,
          (network, cache) -> {
            for (UniformNetwork one : List.of(network, withOtherScaleOfUp(network))) {
              offered.add(backend.whole(one, cache, 8, parts.memory, kernels) != null);
            }
            return null;
          });
      assertThat(offered).containsExactly(true, false);
    }
  }

  /** With more rows of FP8 kernel by kernel is faster. */
  @ParameterizedTest
  @CsvSource({"BF16, 8", "F8_E4M3, 2"})
  void shouldTakeAsManyRowsAsItIsFasterWith(WeightFormat weights, int most) throws IOException {
    if (weights == WeightFormat.F8_E4M3) {
      Gpu.requireFp8();
    }
    try (CudaBackend backend = Gpu.open()) {
      List<Integer> fast = new ArrayList<>();
      logits(
          backend,
          weights,
          (network, cache) -> {
            fast.add(CudaWholeNetwork.fastUpTo(network));
            return null;
          });
      assertThat(fast).containsExactly(most);
    }
  }

  private static UniformNetwork withOtherScaleOfUp(UniformNetwork network) {
    List<UniformNetwork.Block> blocks = new ArrayList<>(network.blocks());
    UniformNetwork.Block last = blocks.removeLast();
    UniformNetwork.FeedForward f = last.feedForward();
    CudaWeight up = (CudaWeight) f.up();
    Quantization other = new Quantization(1, 0.25f);
    blocks.add(
        new UniformNetwork.Block(
            last.attention(),
            new UniformNetwork.FeedForward(
                f.norm(),
                f.gate(),
                new CudaWeight(up.address(), up.format(), up.rows(), up.columns(), other),
                f.down())));
    return new UniformNetwork(
        blocks,
        network.heads(),
        network.rotary(),
        network.norm(),
        network.output(),
        network.epsilon());
  }

  /** Of two decode steps of a network whose way as one kernel is what {@code whole} makes. */
  private float[] logits(
      CudaBackend backend,
      WeightFormat weights,
      BiFunction<UniformNetwork, CudaKvCache, @Nullable WholeNetwork> whole)
      throws IOException {
    try (Model model = model(backend, weights, whole);
        Cache owned = new Cache((CudaKvCache) model.kvCache(4, KvFormat.NATIVE))) {
      int[] tokens = IntStream.range(0, 2).toArray();
      TestSequence sequence = TestSequence.shuffled(tokens, 0, SEED);
      float[] last = new float[0];
      for (int at = 0; at < tokens.length; at++) {
        Part part = new Part(sequence, at, at + 1);
        last =
            model
                .forward(backend.begin(TestSequence.lastLogits(List.of(part)), null), owned.cache)
                .toHost(1);
      }
      return last;
    }
  }

  private Model model(
      CudaBackend backend,
      WeightFormat weights,
      BiFunction<UniformNetwork, CudaKvCache, @Nullable WholeNetwork> whole)
      throws IOException {
    Path config =
        Files.writeString(
            folder.resolve("config.json"),
            """
            {"architectures": ["LlamaForCausalLM"], "vocab_size": 96, "hidden_size": 128,
             "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64,
             "intermediate_size": 192, "num_hidden_layers": 2, "max_position_embeddings": 4096,
             "rms_norm_eps": 1e-5, "rope_theta": 500000, "tie_word_embeddings": false}
            """);
    Backend changed =
        (Backend)
            Proxy.newProxyInstance(
                Backend.class.getClassLoader(),
                new Class<?>[] {Backend.class},
                (proxy, method, arguments) -> {
                  if (method.getName().equals("whole")) {
                    return whole.apply((UniformNetwork) arguments[0], (CudaKvCache) arguments[1]);
                  }
                  try {
                    return method.invoke(backend, arguments);
                  } catch (InvocationTargetException e) {
                    throw e.getCause();
                  }
                });
    return Models.load(new ModelSource.Random(config, weights, SEED), changed);
  }
}
