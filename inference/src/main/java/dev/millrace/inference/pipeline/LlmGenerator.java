package dev.millrace.inference.pipeline;

import dev.millrace.inference.api.GenerateEvent;
import dev.millrace.inference.api.GenerateEvent.Failure;
import dev.millrace.inference.api.GenerateRequest;
import dev.millrace.inference.api.Generator;
import dev.millrace.inference.api.InvalidRequestException;
import dev.millrace.inference.api.Message;
import dev.millrace.inference.api.Prompt;
import dev.millrace.inference.api.ResponseFormat;
import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.api.Scheduling;
import dev.millrace.inference.api.Tool;
import dev.millrace.inference.api.ToolChoice;
import dev.millrace.inference.device.DeviceOptions;
import dev.millrace.inference.device.Devices;
import dev.millrace.inference.engine.Engine;
import dev.millrace.inference.engine.EngineConfig;
import dev.millrace.inference.engine.Runner;
import java.io.IOException;
import java.nio.file.Path;
import java.time.Clock;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * A model that answers requests in text: template, tokenizer and parsers around an {@link Engine}.
 * Owns and closes all of them, and the runner.
 *
 * <p>Equal requests give equal answers, with two exceptions that are not in the request: a template
 * that writes the date takes it from the clock given here, at the time the request is encoded; and
 * log-probabilities of resumed tokens are those of the earlier attempt, so that they are missing.
 *
 * <p>A tool choice that forces a call is served by beginning the answer with one, so that it comes
 * without reasoning. Response formats other than text are refused.
 */
public final class LlmGenerator implements Generator {

  private static final Logger log = LoggerFactory.getLogger(LlmGenerator.class);
  static final String CLOSED = "the generator is closed";

  private final Options options;
  private final ModelText text;
  private final PromptEncoder encoder;
  private final Runner runner;
  private final Engine engine;
  private final TextThreads threads;
  private final Set<Answer> open = ConcurrentHashMap.newKeySet();
  private final AtomicBoolean closing = new AtomicBoolean();

  /**
   * How text work is done.
   *
   * @param model the name that the model goes by
   * @param chatTemplate another template than the checkpoint's own, or null
   * @param encodingThreads that make tokens of prompts
   * @param answeringThreads that make text of tokens and call listeners
   * @param mostOpen requests at one time; more fail with {@link Failure#ENGINE}
   * @param clock what templates take for the date
   */
  public record Options(
      String model,
      @Nullable Path chatTemplate,
      int encodingThreads,
      int answeringThreads,
      int mostOpen,
      Clock clock) {
    public Options {
      if (encodingThreads < 1 || answeringThreads < 1 || mostOpen < 1) {
        throw new IllegalArgumentException(
            "encodingThreads, answeringThreads and mostOpen must be 1 or more: "
                + encodingThreads
                + ", "
                + answeringThreads
                + ", "
                + mostOpen);
      }
    }

    /** Two threads of each kind, 100,000 requests, the system's clock in UTC. */
    public static Options of(String model) {
      return new Options(model, null, 2, 2, 100_000, Clock.systemUTC());
    }

    public Options withChatTemplate(@Nullable Path file) {
      return new Options(model, file, encodingThreads, answeringThreads, mostOpen, clock);
    }

    public Options withClock(Clock other) {
      return new Options(model, chatTemplate, encodingThreads, answeringThreads, mostOpen, other);
    }

    public Options withMostOpen(int most) {
      return new Options(model, chatTemplate, encodingThreads, answeringThreads, most, clock);
    }
  }

  /** Takes over text and runner, which it closes also where this fails. */
  LlmGenerator(ModelText text, Runner runner, EngineConfig config, Options options) {
    this.options = options;
    this.text = text;
    this.runner = runner;
    try {
      this.engine = new Engine(runner, config);
    } catch (RuntimeException | Error e) {
      runner.close();
      text.close();
      throw e;
    }
    this.encoder = new PromptEncoder(text, options.clock(), engine);
    this.threads = new TextThreads(options.encodingThreads(), options.answeringThreads());
  }

  /**
   * Opens the folder of a Hugging Face checkpoint on a device, and answers a first prompt before it
   * returns, so that everything is loaded and compiled.
   *
   * @param device what computes, and in what formats
   * @throws UnsupportedOperationException if the device is not there or cannot do what is asked
   * @throws IOException if tokenizer or template are missing or broken
   * @throws dev.millrace.inference.checkpoint.InvalidCheckpointException if the checkpoint is
   *     damaged, incomplete or of a kind that is not supported
   */
  public static LlmGenerator open(
      Path folder, EngineConfig config, DeviceOptions device, Options options) throws IOException {
    // Before the weights: a folder without a tokenizer is told at once.
    ModelText text = ModelText.open(folder, options.chatTemplate());
    Runner runner;
    try {
      runner = Devices.open(folder, device.withSteps(config.tokenBudget(), config.maxSequences()));
    } catch (RuntimeException | Error e) {
      text.close();
      throw e;
    }
    return warm(text, runner, config, options);
  }

  /**
   * As {@link #open}, of a runner that is open already and that this takes over, also where it
   * fails.
   *
   * @param folder of the tokenizer; the template and what a checkpoint says of its end of text and
   *     of sampling are taken from there where they are
   */
  public static LlmGenerator over(Path folder, Runner runner, EngineConfig config, Options options)
      throws IOException {
    ModelText text;
    try {
      text = ModelText.open(folder, options.chatTemplate());
    } catch (IOException | RuntimeException | Error e) {
      runner.close();
      throw e;
    }
    return warm(text, runner, config, options);
  }

  private static LlmGenerator warm(
      ModelText text, Runner runner, EngineConfig config, Options options) {
    LlmGenerator generator = new LlmGenerator(text, runner, config, options);
    try {
      generator.warmUp();
      return generator;
    } catch (RuntimeException | Error e) {
      generator.close();
      throw e;
    }
  }

  /** Answers a prompt, so that nothing has to be loaded or compiled for the first real one. */
  private void warmUp() {
    Tool tool = new Tool("f", "", "{\"type\": \"object\"}");
    boolean tools = text.template() != null && text.template().showsTools();
    Prompt chat = new Prompt.Chat(List.of(Message.of(Message.Role.USER, "1, 2, 3")));
    try {
      encoder.encode(warmUp(chat, tools ? List.of(tool) : List.of()));
    } catch (InvalidRequestException | RefusedException e) {
      log.info("The model takes no simple conversation: {}", e.getMessage());
    }
    CompletableFuture<GenerateEvent> end = new CompletableFuture<>();
    submit(
        warmUp(new Prompt.Text("1, 2, 3"), List.of()),
        event -> {
          if (!(event instanceof GenerateEvent.Delta)) {
            end.complete(event);
          }
        });
    if (end.join() instanceof GenerateEvent.Failed failed) {
      throw new IllegalStateException("the model answers nothing: " + failed.message());
    }
  }

  private static GenerateRequest warmUp(Prompt prompt, List<Tool> tools) {
    return new GenerateRequest(
        "warm-up",
        prompt,
        tools,
        ToolChoice.AUTO,
        ResponseFormat.TEXT,
        SamplingParams.greedy(4),
        null,
        "",
        Scheduling.ANY,
        new int[0]);
  }

  @Override
  public String model() {
    return options.model();
  }

  @Override
  public SamplingParams samplingDefaults() {
    return text.sampling();
  }

  @Override
  public Generation submit(GenerateRequest request, Consumer<GenerateEvent> listener) {
    Answer answer = new Answer(this, request, listener, threads.choose());
    open.add(answer);
    if (closing.get()) {
      // Whoever closes may have looked for open ones before this one was among them.
      answer.closed();
    } else if (open.size() > options.mostOpen()) {
      answer.onFailed(
          Failure.ENGINE, options.mostOpen() + " requests are open already: submit it later");
    } else if (!threads.encode(answer::encode)) {
      answer.closed();
    }
    return answer;
  }

  @Override
  public Status status() {
    Status engineStatus = engine.stats();
    // The engine says nothing of prompts that it has not been given, or of tokens nobody takes.
    long step = engineStatus.lastStepNanos();
    long text = threads.progressNanos(System.nanoTime());
    int elsewhere = Math.max(0, open.size() - engineStatus.waiting() - engineStatus.running());
    return new Status(
        engineStatus.waiting() + elsewhere,
        engineStatus.running(),
        engineStatus.waitingTokens(),
        engineStatus.runningTokens(),
        engineStatus.kvUse(),
        text - step < 0 ? text : step,
        engineStatus.held(),
        engineStatus.generated(),
        engineStatus.failure());
  }

  @Override
  public Counters counters() {
    return engine.counters();
  }

  /** Called on a text thread (by a listener) it returns before the other listeners have heard. */
  @Override
  public void close() {
    if (closing.getAndSet(true)) {
      return;
    }
    engine.close();
    boolean ended = threads.close();
    open.forEach(Answer::closed);
    runner.close();
    if (ended) {
      text.close();
    } else {
      // Freed under a thread that uses it the tokenizer would take the process down.
      log.warn("A text thread has not ended; the tokenizer's memory goes with the process");
    }
  }

  /** Forgets an answer that ends; false if it has ended already. */
  boolean takeOut(Answer answer) {
    return open.remove(answer);
  }

  boolean closing() {
    return closing.get();
  }

  ModelText text() {
    return text;
  }

  PromptEncoder encoder() {
    return encoder;
  }

  Engine engine() {
    return engine;
  }

  TextThreads threads() {
    return threads;
  }
}
