package dev.millrace.inference.pipeline;

import dev.millrace.inference.api.FinishReason;
import dev.millrace.inference.api.GenerateEvent;
import dev.millrace.inference.api.GenerateEvent.Failure;
import dev.millrace.inference.api.GenerateRequest;
import dev.millrace.inference.api.Generator;
import dev.millrace.inference.api.InvalidRequestException;
import dev.millrace.inference.api.TokenLogprob;
import dev.millrace.inference.api.TraceOnly;
import dev.millrace.inference.engine.Engine;
import dev.millrace.inference.engine.TokenListener;
import dev.millrace.inference.engine.TokenRequest;
import dev.millrace.inference.token.Detokenizer;
import dev.millrace.inference.tool.ReasoningParser;
import dev.millrace.inference.tool.ToolCallParser;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.slf4j.MDC;

/**
 * One request on its way: encoded on an encoding thread, fed by the engine thread, turned into text
 * and events on an answering thread. The engine thread only puts tokens into {@link Mailbox}; the
 * answering thread takes all that has come at once and makes one delta of it.
 */
final class Answer implements Generator.Generation, TokenListener {
  private static final Logger log = LoggerFactory.getLogger(Answer.class);

  /** Under this name a log line's context (MDC) holds the request that it is about. */
  private static final String LOG_KEY = "prompt";

  private final LlmGenerator owner;
  private final GenerateRequest request;
  private final Consumer<GenerateEvent> listener;
  private final int thread;
  private final long submitted = System.nanoTime();
  private final Mailbox mailbox = new Mailbox();

  private volatile boolean cancelled;
  private volatile int allowed;
  private volatile Engine.@Nullable Handle handle;

  // Set while encoding, before the first mail; then of the answering thread alone.
  private @Nullable AnswerText text;
  private int promptTokens;

  private int contentTold;
  private int reasoningTold;
  private int callsTold;
  private int cachedTokens;
  private long startedAt;
  private long firstTokenAt;
  private final List<TokenLogprob> logprobs = new ArrayList<>();
  private volatile boolean ended;

  /**
   * @param thread the answering thread
   */
  Answer(
      LlmGenerator owner, GenerateRequest request, Consumer<GenerateEvent> listener, int thread) {
    this.owner = owner;
    this.request = request;
    this.listener = listener;
    this.thread = thread;
    this.allowed = request.scheduling().allowed();
  }

  // ---- on an encoding thread

  /** Makes the prompt's tokens and hands them to the engine. */
  void encode() {
    MDC.put(LOG_KEY, request.id());
    try {
      if (owner.closing()) {
        onFailed(Failure.CLOSED, LlmGenerator.CLOSED);
      } else if (cancelled) {
        onFinished(FinishReason.CANCELLED);
      } else {
        encodeAndSubmit();
      }
    } catch (InvalidRequestException e) {
      onFailed(Failure.INVALID_REQUEST, String.valueOf(e.getMessage()));
    } catch (RefusedException e) {
      onFailed(e.failure(), String.valueOf(e.getMessage()));
    } catch (RuntimeException | StackOverflowError | OutOfMemoryError e) {
      log.error("Request {}: encoding its prompt failed", request.id(), TraceOnly.of(e));
      onFailed(Failure.ENGINE, "encoding the prompt failed: " + e);
    } finally {
      MDC.remove(LOG_KEY);
    }
  }

  private void encodeAndSubmit() {
    PromptEncoder.Encoded prompt = owner.encoder().encode(request);
    ModelText model = owner.text();
    AnswerText answer =
        new AnswerText(
            new Detokenizer(model.tokenizer(), request.sampling().stop()),
            new ReasoningParser(prompt.reasoning()),
            ToolCallParser.of(model.dialect(), prompt.tools().names()),
            prompt.tools());
    answer.begin(prompt.begun());
    boolean over = false;
    for (int token : request.resume()) {
      over = over || !answer.append(token);
    }
    text = answer;
    promptTokens = prompt.tokens().length;
    if (over) {
      onFinished(FinishReason.STOP);
      return;
    }
    owner
        .engine()
        .submit(
            new TokenRequest(
                request.id(),
                prompt.tokens(),
                request.resume().clone(),
                request.sampling(),
                model.stopTokens(),
                request.scheduling()),
            this);
    // Whoever asked before the engine had the sequence could not reach it.
    if (cancelled) {
      abort();
    }
    allow(allowed);
  }

  // ---- on any thread

  @Override
  public synchronized void allow(int tokens) {
    allowed = Math.max(allowed, tokens);
    Engine.Handle running = handle;
    if (running != null) {
      owner.engine().allow(running, allowed);
    }
  }

  @Override
  public void cancel() {
    cancelled = true;
    abort();
  }

  private void abort() {
    Engine.Handle running = handle;
    if (running != null) {
      owner.engine().abort(running);
    }
  }

  /** The generator is closed and its threads are gone: tells it here and now. */
  void closed() {
    fail(Failure.CLOSED, LlmGenerator.CLOSED);
  }

  // ---- on the engine thread

  @Override
  public void onSubmitted(Engine.Handle given) {
    // Set before the first token comes: on a busy machine many may, before submit() has returned.
    handle = given;
  }

  @Override
  public void onStarted(int cached) {
    if (mailbox.started(cached)) {
      wake();
    }
  }

  @Override
  public void onToken(int token, @Nullable TokenLogprob logprob) {
    if (mailbox.token(token, logprob)) {
      wake();
    }
  }

  @Override
  public void onFinished(FinishReason reason) {
    if (mailbox.finished(reason)) {
      wake();
    }
  }

  @Override
  public void onFailed(Failure failure, String message) {
    if (mailbox.failed(failure, message)) {
      wake();
    }
  }

  private void wake() {
    // Where the thread is closed the generator ends this answer itself.
    owner.threads().answer(thread, this::drain);
  }

  // ---- on the answering thread

  private void drain() {
    Mailbox.Mail mail = mailbox.take();
    if (ended) {
      return;
    }
    MDC.put(LOG_KEY, request.id());
    try {
      read(mail);
    } catch (RuntimeException | StackOverflowError | OutOfMemoryError e) {
      log.error("Request {}: its text could not be read", request.id(), TraceOnly.of(e));
      cancel();
      fail(Failure.ENGINE, "reading the answer failed: " + e);
    } finally {
      MDC.remove(LOG_KEY);
    }
  }

  private void read(Mailbox.Mail mail) {
    if (mail.startedAt() != 0) {
      startedAt = mail.startedAt();
      cachedTokens = mail.cachedTokens();
    }
    if (firstTokenAt == 0) {
      firstTokenAt = mail.firstTokenAt();
    }
    Failure failure = mail.failure();
    AnswerText answer = text;
    if (answer == null) {
      if (failure != null) {
        fail(failure, mail.message());
      } else {
        finish(FinishReason.CANCELLED, null);
      }
      return;
    }
    int read = 0;
    boolean going = true;
    while (going && read < mail.tokens().length) {
      going = answer.append(mail.tokens()[read]);
      TokenLogprob logprob = mail.logprobs().isEmpty() ? null : mail.logprobs().get(read);
      if (logprob != null) {
        logprobs.add(logprob);
      }
      read++;
    }
    tell(answer, Arrays.copyOf(mail.tokens(), read));
    if (!going) {
      // A stop string: the engine may have gone on meanwhile, which nobody hears of.
      cancel();
      finish(FinishReason.STOP, answer);
    } else if (mail.finish() != null) {
      finish(mail.finish(), answer);
    } else if (failure != null) {
      fail(failure, mail.message());
    }
  }

  /**
   * Tells what is new: the tokens, their text as far as it is certain, and complete calls. Text of
   * resumed tokens is new as well: what an attempt tells is whole, so that nobody has to know what
   * an earlier one came to tell.
   */
  private void tell(AnswerText answer, int[] tokens) {
    String content =
        answer.content().subSequence(contentTold, answer.content().length()).toString();
    String reasoning =
        answer.reasoning().subSequence(reasoningTold, answer.reasoning().length()).toString();
    contentTold += content.length();
    reasoningTold += reasoning.length();
    if (tokens.length > 0 || !content.isEmpty() || !reasoning.isEmpty()) {
      tell(new GenerateEvent.Delta(content, reasoning, tokens));
    }
    while (callsTold < answer.calls().size()) {
      tell(answer.calls().get(callsTold++));
    }
  }

  private void finish(FinishReason reason, @Nullable AnswerText answer) {
    if (answer != null) {
      answer.finish();
      tell(answer, new int[0]);
    }
    long now = System.nanoTime();
    List<GenerateEvent.ToolCall> calls = answer == null ? List.of() : List.copyOf(answer.calls());
    boolean called = reason == FinishReason.STOP && !calls.isEmpty();
    end(
        new GenerateEvent.Done(
            called ? FinishReason.TOOL_CALLS : reason,
            answer == null ? "" : answer.content().toString(),
            answer == null ? "" : answer.reasoning().toString(),
            calls,
            new GenerateEvent.Usage(
                promptTokens,
                cachedTokens,
                answer == null ? request.resume().length : answer.tokens(),
                answer == null ? 0 : answer.reasoningTokens(),
                request.resume().length),
            new GenerateEvent.Timings(
                startedAt == 0 ? now - submitted : startedAt - submitted,
                firstTokenAt == 0 ? 0 : firstTokenAt - submitted,
                now - submitted),
            List.copyOf(logprobs)));
  }

  private void fail(Failure failure, String message) {
    end(new GenerateEvent.Failed(failure, message));
  }

  private void end(GenerateEvent event) {
    ended = true;
    // Whoever takes it out ends it: closing on one thread meets an end on another.
    if (owner.takeOut(this)) {
      tell(event);
    }
  }

  private void tell(GenerateEvent event) {
    try {
      listener.accept(event);
    } catch (RuntimeException | Error e) {
      log.error(
          "Request {}: its listener threw at {}", request.id(), event.getClass(), TraceOnly.of(e));
    }
  }
}
