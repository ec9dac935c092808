package dev.millrace.inference.pipeline;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.api.FinishReason;
import dev.millrace.inference.api.GenerateEvent;
import dev.millrace.inference.api.GenerateEvent.Failure;
import dev.millrace.inference.api.Generator;
import dev.millrace.inference.api.Message;
import dev.millrace.inference.api.Prompt;
import dev.millrace.inference.api.ResponseFormat;
import dev.millrace.inference.api.Tool;
import dev.millrace.inference.api.ToolChoice.Mode;
import dev.millrace.inference.chat.ChatTemplate;
import dev.millrace.inference.engine.EngineConfig;
import dev.millrace.inference.token.HfTokenizer;
import dev.millrace.inference.token.TextFixtures;
import dev.millrace.inference.token.TokenizerConfig;
import dev.millrace.inference.tool.ToolCallParser.Dialect;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.function.UnaryOperator;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

class LlmGeneratorTest {
  private static final Tool WEATHER =
      new Tool(
          "get_weather",
          "The weather",
          "{\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}},"
              + " \"required\": [\"city\"]}");
  private static final String CALL =
      "<TOOLCALL>[{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Köln\"}}]</TOOLCALL>";
  private static final int CONTEXT = 4000;

  private HfTokenizer tokenizer;
  private ScriptRunner runner;
  private LlmGenerator generator;

  @BeforeEach
  void open() throws Exception {
    open("nano4b.jinja", options -> options);
  }

  private void open(String template, UnaryOperator<LlmGenerator.Options> changed) throws Exception {
    tokenizer = HfTokenizer.open(TextFixtures.tokenizerFolder());
    int stop = tokenizer.special("<|eot_id|>").orElseThrow();
    runner = new ScriptRunner(tokenizer.vocabSize(), CONTEXT, stop);
    ChatTemplate chat =
        new ChatTemplate(
            Files.readString(Path.of("src/test/python/templates", template)),
            tokenizer.marks(),
            new TokenizerConfig("<|begin_of_text|>", "<|eot_id|>", null));
    ModelText text = new ModelText(tokenizer, chat, Dialect.of(chat.source()), new int[] {stop});
    generator =
        new LlmGenerator(
            text,
            runner,
            EngineConfig.defaults().withPrefixCache(false),
            changed.apply(LlmGenerator.Options.of("test")));
  }

  @AfterEach
  void close() {
    runner.letGo();
    generator.close();
  }

  @Test
  void shouldAnswerAConversation() throws Exception {
    script(1, "It is sunny — 21 °C 😀.");
    Listener listener = run(Requests.seed(1));
    GenerateEvent.Done done = listener.done();
    assertThat(done.finish()).isEqualTo(FinishReason.STOP);
    assertThat(done.content()).isEqualTo("It is sunny — 21 °C 😀.");
    assertThat(done.reasoning()).isEmpty();
    assertThat(listener.content()).isEqualTo(done.content());
    assertThat(listener.tokens()).containsExactly(tokenizer.encode(done.content()));
    assertThat(prompt(1))
        .isEqualTo(
            turn("system", "detailed thinking off")
                + turn("user", "How is the weather?")
                + open("assistant"));
    assertThat(done.usage())
        .isEqualTo(
            new GenerateEvent.Usage(
                runner.prompt(1).length, 0, tokenizer.encode(done.content()).length, 0, 0));
    assertThat(done.timings().total()).isGreaterThanOrEqualTo(done.timings().firstToken());
    assertThat(done.timings().firstToken()).isGreaterThanOrEqualTo(done.timings().queued());
    assertThat(done.timings().queued()).isPositive();
  }

  @Test
  void shouldSplitReasoningAndCountIt() throws Exception {
    String thought = "<think>\nso 1 + 1\n</think>";
    script(1, thought + "\n\nIt is 2.");
    Listener listener = run(Requests.seed(1).reasoning(true));
    GenerateEvent.Done done = listener.done();
    assertThat(done.reasoning()).isEqualTo("so 1 + 1").isEqualTo(listener.reasoning());
    assertThat(done.content()).isEqualTo("It is 2.").isEqualTo(listener.content());
    int reasoned = done.usage().reasoning();
    // The token that closes the tag may hold more than the tag.
    assertThat(text(Arrays.copyOf(listener.tokens(), reasoned))).startsWith(thought);
    assertThat(text(Arrays.copyOf(listener.tokens(), reasoned - 1))).doesNotContain("</think>");
    assertThat(prompt(1)).contains(turn("system", "detailed thinking on"));
  }

  @Test
  void shouldTellToolCallsAndWhetherTheyFit() throws Exception {
    script(1, "Let me see. " + CALL);
    Listener listener = run(Requests.seed(1).tools(WEATHER));
    GenerateEvent.Done done = listener.done();
    assertThat(done.finish()).isEqualTo(FinishReason.TOOL_CALLS);
    assertThat(done.content()).isEqualTo("Let me see. ");
    assertThat(done.toolCalls())
        .containsExactly(new GenerateEvent.ToolCall(0, "get_weather", "{\"city\": \"Köln\"}", null))
        .isEqualTo(listener.calls());
    assertThat(prompt(1)).contains("<AVAILABLE_TOOLS>[{\"name\": \"get_weather\"");

    script(2, "<TOOLCALL>[{\"name\": \"get_weather\", \"arguments\": {\"city\": 5}}]</TOOLCALL>");
    assertThat(run(Requests.seed(2).tools(WEATHER)).done().toolCalls().getFirst().problem())
        .contains("/city");

    script(3, CALL);
    GenerateEvent.Done plain = run(Requests.seed(3)).done();
    assertThat(plain.content()).isEqualTo(CALL);
    assertThat(plain.finish()).isEqualTo(FinishReason.STOP);
    Requests none = Requests.seed(3).tools(WEATHER).choice(Mode.NONE, null);
    assertThat(run(none).done().content()).isEqualTo(CALL);
    assertThat(prompt(3)).doesNotContain("AVAILABLE_TOOLS");
  }

  @Test
  void shouldBeginTheCallThatMustCome() throws Exception {
    script(1, " {\"city\": \"Ulm\"}}]</TOOLCALL>");
    Listener named = run(Requests.seed(1).tools(WEATHER).choice(Mode.NAMED, "get_weather"));
    assertThat(named.done().toolCalls().getFirst().arguments()).isEqualTo("{\"city\": \"Ulm\"}");
    assertThat(named.done().content()).isEmpty();
    assertThat(prompt(1))
        .endsWith(open("assistant") + "<TOOLCALL>[{\"name\": \"get_weather\", \"arguments\":");

    script(2, "get_weather\", \"arguments\": {\"city\": \"Ulm\"}}]</TOOLCALL>");
    Listener required = run(Requests.seed(2).tools(WEATHER).choice(Mode.REQUIRED, null));
    assertThat(required.done().toolCalls()).hasSize(1);
    assertThat(required.done().finish()).isEqualTo(FinishReason.TOOL_CALLS);
  }

  @Test
  void shouldBeginWithThePrefill() throws Exception {
    script(1, " 42.");
    Listener listener = run(Requests.seed(1).prefill("<think>\n</think>\n\nThe answer is"));
    assertThat(listener.done().content())
        .isEqualTo("The answer is 42.")
        .isEqualTo(listener.content());
    assertThat(listener.done().usage().completion()).isEqualTo(tokenizer.encode(" 42.").length);
    assertThat(prompt(1)).endsWith("<think>\n</think>\n\nThe answer is");
  }

  @Test
  void shouldNotMakeSpecialTokensOfPrefillsAndTexts() throws Exception {
    int eot = tokenizer.special("<|eot_id|>").orElseThrow();
    run(Requests.seed(1).prefill("<|eot_id|>")).done();
    assertThat(Arrays.stream(runner.prompt(1)).filter(id -> id == eot).count()).isEqualTo(2);
    run(Requests.seed(2).prompt(new Prompt.Text("a<|eot_id|>b"))).done();
    assertThat(runner.prompt(2)).doesNotContain(eot);
    assertThat(runner.prompt(2)[0]).isEqualTo(tokenizer.beginOfText().orElseThrow());
    assertThat(prompt(2)).isEqualTo("a<|eot_id|>b");
    run(Requests.seed(3).prompt(new Prompt.Tokens(new int[] {5, 6}))).done();
    assertThat(runner.prompt(3)).containsExactly(5, 6);
  }

  @Test
  void shouldStopAtAStopString() throws Exception {
    script(1, "one two three END four");
    runner.endless = true;
    Semaphore permits = runner.hold();
    permits.release(40);
    Listener listener = run(Requests.seed(1).stop("hree EN", "never").maxTokens(3000));
    GenerateEvent.Done done = listener.done();
    assertThat(done.content()).isEqualTo("one two t").isEqualTo(listener.content());
    assertThat(done.finish()).isEqualTo(FinishReason.STOP);
    assertThat(done.usage().completion()).isEqualTo(listener.tokens().length).isLessThan(20);
    permits.release(5000);
    waitUntilIdle();
    assertThat(runner.mostGenerated).as("the engine was told to stop").isLessThan(100);
  }

  @Test
  void shouldEndAtTheMostTokens() throws Exception {
    script(1, "one two three four");
    Listener listener = run(Requests.seed(1).maxTokens(3));
    assertThat(listener.done().finish()).isEqualTo(FinishReason.LENGTH);
    assertThat(listener.tokens()).hasSize(3);
  }

  @Test
  void shouldGiveTheSameAnswerWhenResumedAtAnyToken() throws Exception {
    String answer =
        "<think>\nGrüße 😀 so\n</think>\n\nTwo calls: " + CALL + " and 東京 " + CALL + " STOP no";
    script(1, answer);
    Requests request = Requests.seed(1).tools(WEATHER).stop(" STOP").prefill("").logprobs(0);
    Listener whole = run(request);
    GenerateEvent.Done expected = whole.done();
    assertThat(expected.toolCalls()).hasSize(2);
    assertThat(expected.content()).isEqualTo("Two calls:  and 東京 ");
    int[] tokens = whole.tokens();
    for (int at = 1; at <= tokens.length; at++) {
      Listener resumed = run(request.resume(Arrays.copyOf(tokens, at)));
      GenerateEvent.Done done = resumed.done();
      assertThat(done.content()).as("resumed at %s", at).isEqualTo(expected.content());
      assertThat(done.reasoning()).as("resumed at %s", at).isEqualTo(expected.reasoning());
      assertThat(done.toolCalls()).as("resumed at %s", at).isEqualTo(expected.toolCalls());
      assertThat(done.finish()).as("resumed at %s", at).isEqualTo(expected.finish());
      assertThat(done.usage().completion()).isEqualTo(expected.usage().completion());
      assertThat(done.usage().reasoning()).isEqualTo(expected.usage().reasoning());
      assertThat(resumed.tokens())
          .as("no token is told twice")
          .containsExactly(Arrays.copyOfRange(tokens, at, tokens.length));
      assertThat(resumed.content())
          .as("text told, resumed at %s", at)
          .isEqualTo(expected.content());
      assertThat(done.logprobs()).hasSize(tokens.length - at);
    }
  }

  @Test
  void shouldRefuseWhatItCannotServe() throws Exception {
    assertFailed(
        Requests.seed(1).format(new ResponseFormat(ResponseFormat.Kind.JSON_OBJECT, "")),
        Failure.UNSUPPORTED,
        "response format JSON_OBJECT");
    assertFailed(
        Requests.seed(1).prompt(new Prompt.Text("x")).reasoning(true),
        Failure.UNSUPPORTED,
        "conversations only");
    assertFailed(
        Requests.seed(1).prompt(new Prompt.Chat(List.of())),
        Failure.INVALID_REQUEST,
        "no messages");
    assertFailed(
        Requests.seed(1).prompt(new Prompt.Tokens(new int[0])),
        Failure.INVALID_REQUEST,
        "no tokens");
    assertFailed(
        Requests.seed(1).prompt(new Prompt.Tokens(new int[] {-4})), Failure.INVALID_REQUEST, "-4");
    assertFailed(
        Requests.seed(1).tools(new Tool("f", "", "nonsense")),
        Failure.INVALID_REQUEST,
        "no JSON schema");
    assertFailed(Requests.seed(1).choice(Mode.REQUIRED, null), Failure.INVALID_REQUEST, "no tools");
    assertFailed(
        Requests.seed(1).tools(WEATHER).choice(Mode.NAMED, "nope"),
        Failure.INVALID_REQUEST,
        "the tool to call is nope");
    assertFailed(
        Requests.seed(1)
            .prompt(new Prompt.Chat(List.of(Message.of(Message.Role.USER, "long ".repeat(9000))))),
        Failure.PROMPT_TOO_LONG,
        "context is " + CONTEXT);
    assertFailed(
        Requests.seed(1).prompt(new Prompt.Text("long ".repeat(400_000))),
        Failure.PROMPT_TOO_LONG,
        "more than " + (CONTEXT - 1) + " tokens");
    script(9, "still alive");
    assertThat(run(Requests.seed(9)).done().content()).isEqualTo("still alive");
  }

  @Test
  void shouldRefuseToolsThatTheTemplateDoesNotShow() throws Exception {
    generator.close();
    open("super49b.jinja", options -> options);
    assertFailed(Requests.seed(1).tools(WEATHER), Failure.UNSUPPORTED, "no place for tools");
  }

  @Test
  void shouldSayWhyATemplateRefusesAConversation() throws Exception {
    generator.close();
    open("nano8b.jinja", options -> options);
    script(1, "ok");
    assertThat(run(Requests.seed(1)).done().content()).isEqualTo("ok");
    generator.close();
    open("llama31.jinja", options -> options);
    assertFailed(
        Requests.seed(1)
            .prompt(new Prompt.Chat(List.of(Message.of(Message.Role.SYSTEM, "x"))))
            .tools(WEATHER),
        Failure.INVALID_REQUEST,
        "first user turn");
  }

  @Test
  void shouldCancel() throws Exception {
    script(1, "one two three ");
    runner.endless = true;
    Semaphore permits = runner.hold(); // without it all 3500 tokens may be there before the cancel
    Listener listener = new Listener();
    Generator.Generation generation =
        generator.submit(Requests.seed(1).maxTokens(3500).build(), listener);
    permits.release(3);
    listener.first();
    generation.cancel();
    permits.release(1000);
    GenerateEvent.Done done = listener.done();
    assertThat(done.finish()).isEqualTo(FinishReason.CANCELLED);
    assertThat(done.content()).startsWith("one").isEqualTo(listener.content());
    generation.cancel();
  }

  @Test
  void shouldGoOnAsFarAsItIsAllowed() throws Exception {
    script(1, "one two three ");
    runner.endless = true;
    Listener listener = new Listener();
    Generator.Generation generation =
        generator.submit(Requests.seed(1).maxTokens(40).allowed(5).build(), listener);
    while (generator.status().generated() < 5) {
      Thread.sleep(1);
    }
    Thread.sleep(20);
    assertThat(generator.status().generated()).as("it waits").isEqualTo(5);
    generation.allow(1000);
    assertThat(listener.done().usage().completion()).isEqualTo(40);
  }

  @Test
  void shouldGoOnWhereItWasAllowedBeforeItWasEncoded() throws Exception {
    script(1, "one two three ");
    runner.endless = true;
    Listener listener = new Listener();
    generator.submit(Requests.seed(1).maxTokens(40).allowed(5).build(), listener).allow(1000);
    assertThat(listener.done().usage().completion()).isEqualTo(40);
  }

  @Test
  void shouldCancelBeforeItWasEncoded() throws Exception {
    Listener listener = new Listener();
    generator.submit(Requests.seed(1).maxTokens(3500).build(), listener).cancel();
    assertThat(listener.done().finish()).isIn(FinishReason.CANCELLED, FinishReason.STOP);
  }

  @Test
  void shouldEndOpenRequestsWhenItCloses() throws Exception {
    script(1, "one two three ");
    runner.endless = true;
    Semaphore permits = runner.hold();
    List<Listener> listeners = new ArrayList<>();
    for (int i = 0; i < 50; i++) {
      Listener listener = new Listener();
      listeners.add(listener);
      generator.submit(Requests.seed(1).build(), listener);
      if (i == 0) {
        // Before the others come, which the two steps might else be of.
        permits.release(2);
        listener.first();
      }
    }
    CompletableFuture<Void> closing = CompletableFuture.runAsync(generator::close);
    while (!generator.closing()) {
      Thread.onSpinWait();
    }
    // Steps that end before the engine sees that it closes want permits too.
    permits.release(Integer.MAX_VALUE / 2);
    closing.get(30, TimeUnit.SECONDS);
    for (Listener listener : listeners) {
      assertThat(listener.failed().failure()).isEqualTo(Failure.CLOSED);
    }
    assertThat(runner.closed).isTrue();
    Listener late = new Listener();
    generator.submit(Requests.seed(1).build(), late);
    assertThat(late.failed().failure()).isEqualTo(Failure.CLOSED);
  }

  @Test
  void shouldCloseFromAListener() throws Exception {
    script(1, "one two three ");
    runner.endless = true;
    CompletableFuture<Boolean> closed = new CompletableFuture<>();
    Listener other = new Listener();
    generator.submit(Requests.seed(1).build(), other);
    generator.submit(
        Requests.seed(1).build(),
        event -> {
          if (!closed.isDone()) {
            generator.close();
            closed.complete(true);
          }
        });
    assertThat(closed.get(30, TimeUnit.SECONDS)).isTrue();
    other.end();
  }

  @Test
  void shouldGoOnWhenAListenerThrows() throws Exception {
    script(1, "one two three");
    CompletableFuture<GenerateEvent> end = new CompletableFuture<>();
    generator.submit(
        Requests.seed(1).build(),
        event -> {
          if (event instanceof GenerateEvent.Done) {
            end.complete(event);
          }
          throw new AssertionError("a listener's own fault");
        });
    Listener listener = run(Requests.seed(1));
    assertThat(listener.done().content()).isEqualTo("one two three");
    assertThat(end.get(30, TimeUnit.SECONDS)).isInstanceOf(GenerateEvent.Done.class);
  }

  @Test
  void shouldFailOpenRequestsWhenTheDeviceIsLost() throws Exception {
    script(1, "one two three");
    runner.failing = true;
    assertFailed(Requests.seed(1), Failure.ENGINE, "injected");
    assertThat(generator.status().failure()).contains("injected");
  }

  @Test
  void shouldRefuseMoreThanItsMostOpenRequests() throws Exception {
    generator.close();
    open("nano4b.jinja", options -> options.withMostOpen(2));
    script(1, "ok");
    Semaphore permits = runner.hold();
    List<Listener> two = List.of(new Listener(), new Listener());
    two.forEach(listener -> generator.submit(Requests.seed(1).build(), listener));
    assertFailed(Requests.seed(1), Failure.ENGINE, "2 requests are open");
    permits.release(1000);
    for (Listener listener : two) {
      assertThat(listener.done().content()).isEqualTo("ok");
    }
    assertThat(run(Requests.seed(1)).done().content()).isEqualTo("ok");
  }

  @Test
  void shouldAnswerManyAtOnceEachInOrder() throws Exception {
    List<Listener> listeners = new ArrayList<>();
    for (int i = 0; i < 300; i++) {
      script(i, "answer number " + i + " for you ".repeat(i % 7));
    }
    for (int i = 0; i < 300; i++) {
      Listener listener = new Listener();
      listeners.add(listener);
      generator.submit(Requests.seed(i).build(), listener);
    }
    for (int i = 0; i < 300; i++) {
      GenerateEvent.Done done = listeners.get(i).done();
      assertThat(done.content()).isEqualTo("answer number " + i + " for you ".repeat(i % 7));
      assertThat(listeners.get(i).content()).isEqualTo(done.content());
    }
    assertThat(generator.model()).isEqualTo("test");
    waitUntilIdle();
    assertThat(generator.status().generated()).isPositive();
  }

  @Test
  void shouldNotLookBusyWhileItsTextThreadsHang() throws Exception {
    script(1, "ok");
    CountDownLatch hangs = new CountDownLatch(1);
    CountDownLatch on = new CountDownLatch(1);
    Listener listener = new Listener();
    generator.submit(
        Requests.seed(1).build(),
        event -> {
          hangs.countDown();
          await(on);
          listener.accept(event);
        });
    await(hangs);
    long hung = System.nanoTime();
    long deadline = hung + TimeUnit.SECONDS.toNanos(30);
    while (generator.engine().stats().lastStepNanos() <= hung) {
      assertThat(System.nanoTime()).as("the engine's heartbeat").isLessThan(deadline);
      Thread.sleep(5);
    }
    assertThat(generator.status().waiting()).isEqualTo(1);
    assertThat(generator.status().lastStepNanos()).isLessThanOrEqualTo(hung);
    on.countDown();
    assertThat(listener.done().content()).isEqualTo("ok");
  }

  private static void await(CountDownLatch latch) {
    try {
      assertThat(latch.await(30, TimeUnit.SECONDS)).isTrue();
    } catch (InterruptedException e) {
      throw new IllegalStateException(e);
    }
  }

  @Test
  void shouldCountWhatAnAttemptDidNotGenerateItself() throws Exception {
    script(1, "one two three four");
    int[] all = run(Requests.seed(1)).tokens();
    GenerateEvent.Usage usage = run(Requests.seed(1).resume(Arrays.copyOf(all, 2))).done().usage();
    assertThat(usage.resumed()).isEqualTo(2);
    assertThat(usage.generated()).isEqualTo(usage.completion() - 2).isPositive();
  }

  private void waitUntilIdle() throws InterruptedException {
    long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(30);
    while (generator.status().running() + generator.status().waiting() > 0) {
      assertThat(System.nanoTime()).isLessThan(deadline);
      Thread.sleep(5);
    }
  }

  private void assertFailed(Requests request, Failure failure, String why) throws Exception {
    GenerateEvent.Failed failed = run(request).failed();
    assertThat(failed.failure()).as(failed.message()).isEqualTo(failure);
    assertThat(failed.message()).contains(why);
  }

  private Listener run(Requests request) throws Exception {
    Listener listener = new Listener();
    generator.submit(request.build(), listener);
    listener.end();
    return listener;
  }

  private void script(long seed, String text) {
    runner.script(seed, tokenizer.encode(text));
  }

  private String prompt(long seed) {
    return text(runner.prompt(seed));
  }

  /** The text of tokens, special ones left out as they are in the answers. */
  private String text(int[] ids) {
    java.io.ByteArrayOutputStream bytes = new java.io.ByteArrayOutputStream();
    for (int id : ids) {
      bytes.writeBytes(tokenizer.bytes(id));
    }
    return bytes.toString(java.nio.charset.StandardCharsets.UTF_8);
  }

  private static String turn(String role, String text) {
    return open(role) + text;
  }

  private static String open(String role) {
    return role + "\n\n";
  }
}
