package dev.millrace.topology.cli;

import dev.millrace.schemas.ChunkAssembler;
import dev.millrace.schemas.ChunkEvent;
import dev.millrace.schemas.CompletionEvent;
import dev.millrace.schemas.CompletionToolCall;
import dev.millrace.schemas.MessageRole;
import dev.millrace.schemas.PromptEvent;
import dev.millrace.schemas.PromptMessage;
import dev.millrace.schemas.PromptSampling;
import dev.millrace.schemas.PromptTool;
import dev.millrace.topology.Environment;
import dev.millrace.topology.WorkerConfig;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code millrace send}. */
@Command(
    name = "send",
    description = {
      "Sends a prompt and prints the answer as it is written.",
      "Without --config or --bootstrap it goes to the demo that was started with --keep."
    })
@SuppressWarnings("NullAway.Init")
public final class SendCommand implements Callable<Integer> {
  @Parameters(paramLabel = "TEXT", description = "What to ask.")
  private String text;

  @Option(
      names = "--config",
      paramLabel = "FILE",
      description = "Settings of the worker that is to answer.")
  private @Nullable Path config;

  @Option(
      names = "--bootstrap",
      paramLabel = "HOST:PORT",
      description = "The broker; over what --config says.")
  private @Nullable String bootstrap;

  @Option(
      names = "--registry",
      paramLabel = "URL",
      description = "The schema registry; over what --config says.")
  private @Nullable String registry;

  @Option(names = "--system", paramLabel = "TEXT", description = "The system message.")
  private @Nullable String system;

  @Option(
      names = "--tools",
      paramLabel = "FILE",
      description = "Tools that may be called: a JSON list of name, description, parameters.")
  private @Nullable Path tools;

  @Option(
      names = "--thinking",
      negatable = true,
      description = "Whether the model shows its work; without it the model's own default.")
  private @Nullable Boolean thinking;

  @Option(names = "--max-tokens", paramLabel = "N", description = "Most tokens to write.")
  private @Nullable Integer maxTokens;

  @Option(names = "--temperature", paramLabel = "T", description = "0: always the likeliest token.")
  private @Nullable Double temperature;

  @Option(names = "--seed", paramLabel = "N", description = "Of the random stream.")
  private @Nullable Long seed;

  @Option(
      names = "--timeout",
      paramLabel = "SECONDS",
      description = "Give up when nothing came for so long (default: ${DEFAULT-VALUE}).")
  private int timeoutSeconds = 60;

  @Spec private CommandSpec spec;

  @Override
  public Integer call() throws InterruptedException {
    Logs.errorsOnly();
    WorkerConfig settings = settings();
    PromptEvent prompt = prompt();
    try (EventClient client = new EventClient(settings)) {
      client.send(prompt).get();
      return new Answer(prompt.getId(), spec.commandLine().getOut(), spec.commandLine().getErr())
          .follow(client, Duration.ofSeconds(timeoutSeconds));
    } catch (ExecutionException e) {
      throw new Failures.CommandFailedException(
          "cannot send the prompt: " + Failures.describe(e.getCause()), e);
    }
  }

  private WorkerConfig settings() {
    Map<String, String> given = new HashMap<>();
    if (bootstrap != null) {
      given.put("kafka.bootstrap.servers", bootstrap);
    }
    if (registry != null) {
      given.put("registry.url", registry);
    }
    if (config != null) {
      return WorkerConfig.load(config).with(given);
    }
    if (bootstrap != null && registry != null) {
      return WorkerConfig.of(given);
    }
    Path kept = Environment.home().resolve(DemoCommand.KEPT_SETTINGS);
    if (!Files.isRegularFile(kept)) {
      throw new Failures.CommandFailedException(
          "no demo is running that could answer: start ./millrace demo --keep in another terminal,"
              + " or say where with --config FILE, or with --bootstrap and --registry");
    }
    return WorkerConfig.load(kept).with(given);
  }

  private PromptEvent prompt() {
    List<PromptMessage> messages = new ArrayList<>();
    if (system != null) {
      messages.add(message(MessageRole.SYSTEM, system));
    }
    messages.add(message(MessageRole.USER, text));
    List<PromptTool> offered = tools == null ? List.of() : PromptsFile.readTools(tools);
    return PromptEvent.newBuilder()
        .setId("send-" + UUID.randomUUID())
        .setMessages(messages)
        .setTools(offered)
        .setReasoning(thinking)
        .setStream(true)
        .setSampling(
            PromptSampling.newBuilder()
                .setMaxTokens(maxTokens)
                .setTemperature(temperature)
                .setSeed(seed)
                .build())
        .build();
  }

  private static PromptMessage message(MessageRole role, String content) {
    return PromptMessage.newBuilder().setRole(role).setContent(content).build();
  }

  /** The answer to one prompt on its way to the screen. */
  private static final class Answer {
    private final String id;
    private final PrintWriter out;
    private final PrintWriter err;
    private final ChunkAssembler assembler = new ChunkAssembler();
    private boolean begun;
    private boolean thinks;

    Answer(String id, PrintWriter out, PrintWriter err) {
      this.id = id;
      this.out = out;
      this.err = err;
    }

    int follow(EventClient client, Duration patience) {
      long last = System.nanoTime();
      while (System.nanoTime() - last < patience.toNanos()) {
        for (EventClient.Outcome outcome : client.poll(Duration.ofMillis(100))) {
          switch (outcome) {
            case EventClient.Outcome.Chunk(ChunkEvent chunk, var source)
                when chunk.getPromptId().equals(id) -> {
              print(assembler.add(chunk));
              last = System.nanoTime();
            }
            case EventClient.Outcome.Completion(CompletionEvent event, var source)
                when event.getPromptId().equals(id) -> {
              finish(event);
              return 0;
            }
            case EventClient.Outcome.DeadLetter(String key, String reason, var source)
                when key.equals(id) ->
                throw new Failures.CommandFailedException("the prompt was refused: " + reason);
            default -> {
              // Somebody else's.
            }
          }
        }
      }
      throw new Failures.CommandFailedException(
          "no answer within "
              + patience.toSeconds()
              + " s: is a worker running on these topics, and has it room? (--timeout waits"
              + " longer)");
    }

    private void print(ChunkAssembler.Update update) {
      if (update.restart() && begun) {
        out.println();
        err.println("[the worker died or a part was lost; from the beginning:]");
        err.flush();
        begun = false;
        thinks = false;
      }
      write(update.reasoning(), update.content());
    }

    private void write(String moreReasoning, String moreContent) {
      if (!moreReasoning.isEmpty()) {
        if (!thinks) {
          out.print("[thinking] ");
          thinks = true;
        }
        out.print(moreReasoning);
        begun = true;
      }
      if (!moreContent.isEmpty()) {
        if (thinks) {
          out.print(System.lineSeparator() + "[answer] ");
          thinks = false;
        }
        out.print(moreContent);
        begun = true;
      }
      out.flush();
    }

    private void finish(CompletionEvent event) {
      // Chunks and completion come on different topics: what has not come yet is in here.
      print(assembler.complete(event));
      if (begun) {
        out.println();
      }
      for (CompletionToolCall call : event.getToolCalls()) {
        out.println("[call] " + call.getName() + " " + call.getArguments());
        if (!call.getValid()) {
          out.println("       does not fit the tool: " + call.getProblem());
        }
      }
      out.flush();
      err.printf(
          Locale.ROOT,
          "[%s: %d tokens read, %d written, %.2f s]%n",
          event.getFinishReason(),
          event.getUsage().getPrompt(),
          event.getUsage().getCompletion(),
          event.getTimes().getTotalMs() / 1e3);
      err.flush();
    }
  }
}
