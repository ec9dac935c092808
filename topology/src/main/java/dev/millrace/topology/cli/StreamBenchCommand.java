package dev.millrace.topology.cli;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.millrace.inference.bench.Ceilings;
import dev.millrace.inference.bench.EngineBench;
import dev.millrace.inference.bench.EngineReport;
import dev.millrace.inference.bench.Load;
import dev.millrace.inference.bench.MadeUpTokenizer;
import dev.millrace.inference.model.ModelRunner;
import dev.millrace.inference.pipeline.LlmGenerator;
import dev.millrace.topology.Worker;
import dev.millrace.topology.WorkerConfig;
import dev.millrace.topology.local.ForkedBroker;
import dev.millrace.topology.local.TemporaryFolder;
import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** {@code millrace bench stream}. */
@Command(
    name = "stream",
    description = {
      "Serves the same made-up requests twice on one loaded model: on the engine alone, as bench",
      "engine does, and as prompts of tokens through a broker in a process of its own and a worker",
      "in this one. Says what share of the engine's tokens a second is left."
    })
@SuppressWarnings("NullAway.Init")
public final class StreamBenchCommand implements Callable<Integer> {
  private static final Duration START = Duration.ofSeconds(120);

  @Mixin private ModelOptions model;
  @Mixin private LoadOptions options;

  @Option(
      names = "--guarantee",
      paramLabel = "NAME",
      defaultValue = "at_least_once",
      description = "at_least_once or exactly_once_v2 (default: ${DEFAULT-VALUE}).")
  private String guarantee;

  @Option(names = "--json", description = "Print one JSON object and nothing else.")
  private boolean json;

  @Spec private CommandSpec spec;

  @Override
  public Integer call() throws InterruptedException {
    Logs.errorsOnly();
    Screen screen = new Screen(spec.commandLine().getOut());
    Load load = options.load(model.seed());
    try (TemporaryFolder folder = TemporaryFolder.create("millrace-bench-")) {
      ModelRunner runner = model.open(options.blocks(), options.engine());
      EngineReport alone;
      int vocabSize = runner.info().vocabSize();
      ObjectNode setup;
      try {
        Ceilings ceilings = Ceilings.measure(runner.gauge(), runner.footprint().format());
        alone = new EngineBench(runner, options.engine(), load, ceilings).run();
        setup = EngineTable.json(model, runner, load, alone);
        if (!json) {
          EngineTable.head(screen, model, runner);
          EngineTable.load(screen, load);
          screen.line("engine alone      %.1f tokens/s", alone.outputPerSecond());
        }
      } catch (IllegalArgumentException e) {
        runner.close();
        throw new Failures.CommandFailedException(Failures.describe(e), e);
      } catch (RuntimeException | Error | InterruptedException e) {
        runner.close();
        throw e;
      }
      StreamBench.Result result;
      // It takes the runner over.
      try (LlmGenerator generator = generator(runner, vocabSize, folder.path())) {
        result = through(generator, vocabSize, load, folder.path());
      }
      print(screen, setup, alone, result);
    } catch (IOException e) {
      throw new Failures.CommandFailedException(Failures.describe(e), e);
    }
    return 0;
  }

  private LlmGenerator generator(ModelRunner runner, int vocabSize, Path folder)
      throws IOException {
    Path text = model.path();
    if (model.madeUp()) {
      text = folder;
      MadeUpTokenizer.write(folder, vocabSize);
    }
    return LlmGenerator.over(text, runner, options.engine(), LlmGenerator.Options.of("bench"));
  }

  private StreamBench.Result through(LlmGenerator generator, int vocabSize, Load load, Path folder)
      throws InterruptedException {
    try (ForkedBroker broker = ForkedBroker.start(folder.resolve("broker"), Map.of())) {
      WorkerConfig config = settings(broker, folder);
      TopicsCommand.create(config);
      try (Worker worker = new Worker(config, generator)) {
        worker.start();
        if (!worker.awaitRunning(START)) {
          throw new Failures.CommandFailedException(
              "the worker does not run: " + worker.state() + ", " + worker.failure());
        }
        StreamBench bench = new StreamBench(config, vocabSize);
        Load few =
            new Load(
                2,
                0,
                Math.min(16, load.inputTokens()),
                Math.min(16, load.outputTokens()),
                0,
                ~load.seed());
        bench.run(few, "warm-up-");
        StreamBench.Result result = bench.run(load, "bench-");
        worker.close(Duration.ofSeconds(10));
        return result;
      }
    }
  }

  private WorkerConfig settings(ForkedBroker broker, Path folder) {
    Map<String, String> settings = new HashMap<>();
    settings.put("kafka.bootstrap.servers", broker.bootstrap());
    settings.put("kafka.application.id", "millrace-bench");
    settings.put("kafka.state.dir", folder.resolve("state").toString());
    settings.put("kafka.processing.guarantee", guarantee);
    // Of this process alone, as worker and client are.
    settings.put("registry.url", "mock://" + folder.getFileName());
    // As many as run at once, and as many again, so that the engine never waits for prompts.
    settings.put("window.prompts", "" + Math.max(512, 2 * options.engine().maxSequences()));
    settings.put("topics.partitions", "4");
    settings.put("status.port", "-1");
    return WorkerConfig.of(settings);
  }

  private void print(Screen screen, ObjectNode root, EngineReport alone, StreamBench.Result result)
      throws IOException {
    double ratio = result.outputPerSecond() / alone.outputPerSecond();
    if (json) {
      ObjectNode stream = root.putObject("stream");
      stream.put("guarantee", guarantee);
      stream.put("seconds", result.seconds());
      stream.put("output_tokens", result.outputTokens());
      stream.put("output_tokens_per_second", result.outputPerSecond());
      stream.put("prompt_to_completion_p50_ms", result.prompt().p50());
      stream.put("prompt_to_completion_p99_ms", result.prompt().p99());
      root.put("stream_to_engine", ratio);
      screen.line("%s", root);
      return;
    }
    screen.line(
        "through Kafka     %.1f tokens/s: %d in %.2f s, %s",
        result.outputPerSecond(), result.outputTokens(), result.seconds(), guarantee);
    screen.line(
        "prompt to answer  p50 %.1f ms, p99 %.1f ms", result.prompt().p50(), result.prompt().p99());
    screen.line("of the engine's   %.1f %%", 100 * ratio);
  }
}
