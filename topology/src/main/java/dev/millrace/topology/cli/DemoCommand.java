package dev.millrace.topology.cli;

import dev.millrace.inference.api.Generator;
import dev.millrace.topology.Environment;
import dev.millrace.topology.Worker;
import dev.millrace.topology.WorkerConfig;
import dev.millrace.topology.local.LocalStack;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.io.Writer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** {@code millrace demo}. */
@Command(
    name = "demo",
    description = {
      "Starts a Kafka broker, a schema registry and a worker with the shipped model on this"
          + " machine,",
      "sends the prompts of a file and shows what comes back. Ends with 0 if all were answered."
    })
@SuppressWarnings("NullAway.Init")
public final class DemoCommand implements Callable<Integer> {
  /** Where {@code --keep} leaves the settings that {@code millrace send} finds by itself. */
  static final String KEPT_SETTINGS = ".millrace/demo.properties";

  private static final String PROMPTS = "deploy/demo-prompts.jsonl";
  static final String MODEL = "src/model/checkpoint";

  @Option(
      names = "--prompts",
      paramLabel = "FILE",
      description = "Prompts to send (default: " + PROMPTS + ", which explains the format).")
  private @Nullable Path prompts;

  @Option(
      names = "--model",
      paramLabel = "DIR",
      description = "Checkpoint to serve (default: " + MODEL + ").")
  private @Nullable Path model;

  @Option(
      names = "--device",
      paramLabel = "NAME",
      defaultValue = "cpu",
      description = "What computes: cpu, or cuda:N for the N-th GPU (default: ${DEFAULT-VALUE}).")
  private String device;

  @Option(
      names = "--keep",
      description = "Leave everything running, for prompts from another terminal.")
  private boolean keep;

  @Option(
      names = "--timeout",
      paramLabel = "SECONDS",
      description = "Give up when no answer came for so long (default: ${DEFAULT-VALUE}).")
  private int timeoutSeconds = 60;

  @Spec private CommandSpec spec;

  @Override
  public Integer call() throws InterruptedException {
    Path home = Environment.home();
    if (keep && Environment.bundled()) {
      throw new Failures.CommandFailedException(
          "a bundle has no registry that another program could reach: leave --keep out, or start"
              + " ./millrace worker against a broker and a registry of your own");
    }
    List<PromptsFile.Entry> entries =
        PromptsFile.read(prompts == null ? home.resolve(PROMPTS) : prompts);
    Path checkpoint = model == null ? home.resolve(MODEL) : model;
    Path log = folder(home).resolve("demo.log");
    Logs.toFile(log);
    Screen screen = new Screen(spec.commandLine().getOut());
    screen.line("Starting a broker, a registry and a worker; their log is %s", log);
    long start = System.nanoTime();
    try (Parts parts = Parts.start(checkpoint, device)) {
      screen.line("  broker    %s", parts.config().bootstrapServers());
      screen.line("  registry  %s", parts.stack().registryUrl());
      screen.line("  model     %s from %s", parts.generator().model(), checkpoint);
      screen.line("  ready in %.1f s%n", (System.nanoTime() - start) / 1e9);
      DemoRun run = new DemoRun(parts.config(), screen, Duration.ofSeconds(timeoutSeconds));
      boolean answered = run.send(entries);
      if (keep) {
        stay(home, parts, screen);
      }
      return answered ? 0 : Failures.FAILED;
    }
  }

  /** Everything that runs; closed in the opposite order. */
  private record Parts(LocalStack stack, Generator generator, WorkerConfig config, Worker worker)
      implements AutoCloseable {

    static Parts start(Path checkpoint, String device) {
      CompletableFuture<LocalStack> stack =
          CompletableFuture.supplyAsync(
              Environment.bundled() ? LocalStack::startWithoutRegistry : LocalStack::start);
      Generator generator = null;
      try {
        // Loading does not need the broker, so both start at once.
        generator = Models.load(settings(checkpoint, device, "localhost:0", ""));
        LocalStack started = stack.join();
        WorkerConfig config =
            settings(checkpoint, device, started.broker().bootstrap(), started.registryUrl())
                .with(Map.of("kafka.state.dir", started.folder().resolve("state").toString()));
        TopicsCommand.create(config);
        Worker worker = new Worker(config, generator);
        Parts parts = new Parts(started, generator, config, worker);
        worker.start();
        return parts;
      } catch (RuntimeException e) {
        stack.thenAccept(LocalStack::close).exceptionally(f -> null).join();
        if (generator != null) {
          generator.close();
        }
        throw e instanceof CompletionException && e.getCause() instanceof RuntimeException cause
            ? cause
            : e;
      }
    }

    private static WorkerConfig settings(
        Path checkpoint, String device, String bootstrap, String registry) {
      return WorkerConfig.of(
          Map.of(
              "kafka.bootstrap.servers",
              bootstrap,
              "kafka.application.id",
              "millrace-demo",
              "registry.url",
              registry,
              "model.path",
              checkpoint.toString(),
              "model.name",
              "millrace-demo",
              "engine.device",
              device,
              "topics.partitions",
              "2",
              "status.port",
              "0"));
    }

    @Override
    public void close() {
      worker.close(Duration.ofSeconds(5));
      generator.close();
      stack.close();
    }
  }

  private void stay(Path home, Parts parts, Screen screen) throws InterruptedException {
    Path settings = home.resolve(KEPT_SETTINGS);
    Properties kept = new Properties();
    kept.setProperty("kafka.bootstrap.servers", parts.config().bootstrapServers());
    kept.setProperty("registry.url", parts.stack().registryUrl());
    try (Writer out = Files.newBufferedWriter(settings)) {
      kept.store(out, "Written by millrace demo --keep; gone when it ends");
    } catch (IOException e) {
      throw new UncheckedIOException("cannot write " + settings, e);
    }
    Thread ending =
        new Thread(
            () -> {
              settings.toFile().delete();
              parts.close();
            },
            "demo-end");
    Runtime.getRuntime().addShutdownHook(ending);
    screen.line("Everything stays up. From another terminal:");
    screen.line("  ./millrace send \"What is 345 + 287?\"");
    screen.line("  ./millrace send --thinking \"What is 345 + 287?\"");
    screen.line("Other programs: bootstrap.servers=%s", parts.config().bootstrapServers());
    screen.line("                schema.registry.url=%s", parts.stack().registryUrl());
    screen.line("Ctrl-C ends it.");
    Thread.sleep(Long.MAX_VALUE);
  }

  private static Path folder(Path home) {
    try {
      return Files.createDirectories(home.resolve(KEPT_SETTINGS).getParent());
    } catch (IOException e) {
      throw new UncheckedIOException("cannot make a folder for the log in " + home, e);
    }
  }
}
