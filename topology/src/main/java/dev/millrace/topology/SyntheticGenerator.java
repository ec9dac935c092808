package dev.millrace.topology;

import dev.millrace.inference.api.FinishReason;
import dev.millrace.inference.api.GenerateEvent;
import dev.millrace.inference.api.GenerateEvent.Delta;
import dev.millrace.inference.api.GenerateEvent.Done;
import dev.millrace.inference.api.GenerateEvent.Failed;
import dev.millrace.inference.api.GenerateEvent.Failure;
import dev.millrace.inference.api.GenerateEvent.Timings;
import dev.millrace.inference.api.GenerateEvent.Usage;
import dev.millrace.inference.api.GenerateRequest;
import dev.millrace.inference.api.Generator;
import dev.millrace.inference.api.Message;
import dev.millrace.inference.api.Prompt;
import dev.millrace.inference.api.TraceOnly;
import java.util.Arrays;
import java.util.List;
import java.util.Queue;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * A generator without a model, for benchmarks and tests of everything around one: its tokens are a
 * function of prompt, seed and position, each a word of the answer, so that an answer is the same
 * bytes on every attempt and can be checked. It always generates maxTokens tokens. Whoever made it
 * closes it.
 */
public final class SyntheticGenerator implements Generator {
  private static final Logger log = LoggerFactory.getLogger(SyntheticGenerator.class);

  /** Token ids are 0 to this, exclusive. */
  static final int VOCABULARY = 50_000;

  private static final long STEP_NANOS = 2_000_000;

  private final String model;
  private final double tokensPerSecond;
  private final int most;
  private final Set<Run> runs = ConcurrentHashMap.newKeySet();
  private final Queue<Run> waiting = new ConcurrentLinkedQueue<>();
  private final AtomicLong generated = new AtomicLong();
  private final @Nullable Thread stepper;
  private volatile boolean closed;
  private volatile long lastStep = System.nanoTime();

  private SyntheticGenerator(String model, double tokensPerSecond, int most) {
    this.model = model;
    this.most = most;
    this.tokensPerSecond = tokensPerSecond;
    stepper =
        Double.isInfinite(tokensPerSecond)
            ? null
            : Thread.ofPlatform().daemon().name("synthetic-generator").start(this::step);
  }

  /** Answers each request before {@code submit} returns, whatever it is allowed. */
  public static SyntheticGenerator atOnce(String model) {
    return new SyntheticGenerator(model, Double.POSITIVE_INFINITY, Integer.MAX_VALUE);
  }

  /** Gives every request this many tokens a second, however many there are. */
  public static SyntheticGenerator atRate(String model, double tokensPerSecond) {
    return atRate(model, tokensPerSecond, Integer.MAX_VALUE);
  }

  /** The same to so many requests at once; the others wait for their turn. */
  public static SyntheticGenerator atRate(String model, double tokensPerSecond, int most) {
    if (!(tokensPerSecond > 0)) {
      throw new IllegalArgumentException("tokensPerSecond must be above 0: " + tokensPerSecond);
    }
    return new SyntheticGenerator(model, tokensPerSecond, most);
  }

  /** The token at a position of the answer. */
  public static int token(long promptHash, int position) {
    long z = promptHash + 0x9E3779B97F4A7C15L * (position + 1);
    z = (z ^ (z >>> 30)) * 0xBF58476D1CE4E5B9L;
    z = (z ^ (z >>> 27)) * 0x94D049BB133111EBL;
    return (int) Long.remainderUnsigned(z ^ (z >>> 31), VOCABULARY);
  }

  /** What a request's tokens depend on. */
  public static long hash(GenerateRequest request) {
    long hash = request.sampling().seed();
    return switch (request.prompt()) {
      case Prompt.Text text -> mix(hash, text.text());
      case Prompt.Tokens tokens -> hash * 31 + Arrays.hashCode(tokens.ids());
      case Prompt.Chat chat -> {
        for (Message message : chat.messages()) {
          hash = mix(hash, message.content());
        }
        yield hash;
      }
    };
  }

  private static long mix(long hash, String text) {
    return hash * 0x100000001B3L + text.hashCode();
  }

  /** The whole answer to a request. */
  public static String answer(GenerateRequest request) {
    return text(hash(request), 0, request.sampling().maxTokens());
  }

  private static String text(long hash, int from, int to) {
    StringBuilder text = new StringBuilder((to - from) * 6);
    for (int i = from; i < to; i++) {
      text.append('w').append(token(hash, i)).append(' ');
    }
    return text.toString();
  }

  @Override
  public String model() {
    return model;
  }

  @Override
  public Generation submit(GenerateRequest request, Consumer<GenerateEvent> listener) {
    Run run = new Run(request, listener);
    if (closed) {
      run.fail(Failure.CLOSED, "the generator is closed");
    } else if (!run.resumes()) {
      run.fail(
          Failure.INVALID_REQUEST, "the tokens to resume are not those that were generated before");
    } else if (stepper == null) {
      run.advance(Integer.MAX_VALUE);
    } else {
      waiting.add(run);
    }
    return run;
  }

  private void step() {
    while (!closed) {
      long now = System.nanoTime();
      while (runs.size() < most) {
        Run next = waiting.poll();
        if (next == null) {
          break;
        }
        next.begin(now);
      }
      for (Run run : runs) {
        run.step(now);
      }
      lastStep = System.nanoTime();
      java.util.concurrent.locks.LockSupport.parkNanos(STEP_NANOS);
    }
  }

  @Override
  public Status status() {
    int running = runs.size();
    return new Status(
        waiting.size(), running, 0, running, 0, lastStep, null, generated.get(), null);
  }

  @Override
  public void close() {
    closed = true;
    for (Run run : runs) {
      run.fail(Failure.CLOSED, "the generator is closed");
    }
    for (Run run = waiting.poll(); run != null; run = waiting.poll()) {
      run.fail(Failure.CLOSED, "the generator is closed");
    }
  }

  /** A request under way; its own monitor keeps its events in order. */
  private final class Run implements Generation {
    private final GenerateRequest request;
    private final Consumer<GenerateEvent> listener;
    private final long hash;
    private final long submitted = System.nanoTime();
    private long started = submitted;

    /** When it would have started, had it never waited to be allowed more. */
    private long clock;

    private final int resumed;
    private int position;
    private int allowed;
    private boolean toldResumed;
    private boolean ended;

    Run(GenerateRequest request, Consumer<GenerateEvent> listener) {
      this.request = request;
      this.listener = listener;
      this.hash = hash(request);
      this.resumed = request.resume().length;
      this.position = resumed;
      this.allowed = stepper == null ? Integer.MAX_VALUE : request.scheduling().allowed();
    }

    boolean resumes() {
      for (int i = 0; i < resumed; i++) {
        if (request.resume()[i] != token(hash, i)) {
          return false;
        }
      }
      return true;
    }

    /** Its turn has come, unless it has ended before. */
    synchronized void begin(long now) {
      if (!ended) {
        started = now;
        clock = now;
        runs.add(this);
      }
    }

    /** Generates what is due by the clock, which stands still while it waits to be allowed more. */
    synchronized void step(long now) {
      advance((int) ((now - clock) * 1e-9 * tokensPerSecond));
      if (position >= allowed) {
        clock = now - (long) ((position - resumed) * 1e9 / tokensPerSecond);
      }
    }

    /** Generates up to that many tokens of this attempt. */
    synchronized void advance(int tokens) {
      if (ended) {
        return;
      }
      int most = request.sampling().maxTokens();
      int to = (int) Math.min(Math.min(most, allowed), (long) resumed + tokens);
      if (to > position || (!toldResumed && resumed > 0)) {
        int[] ids = new int[Math.max(0, to - position)];
        for (int i = 0; i < ids.length; i++) {
          ids[i] = token(hash, position + i);
        }
        String news = text(hash, toldResumed ? position : 0, Math.max(to, position));
        toldResumed = true;
        position = Math.max(to, position);
        generated.addAndGet(ids.length);
        if (stepper != null) {
          tell(new Delta(news, "", ids));
        }
      }
      if (position >= most) {
        end(FinishReason.LENGTH);
      }
    }

    @Override
    public synchronized void cancel() {
      if (!ended) {
        end(FinishReason.CANCELLED);
      }
    }

    @Override
    public synchronized void allow(int tokens) {
      allowed = Math.max(allowed, tokens);
    }

    private void end(FinishReason finish) {
      if (!toldResumed && resumed > 0 && stepper != null) {
        // What it tells is whole, also where it ends before its turn comes.
        tell(new Delta(text(hash, 0, resumed), "", new int[0]));
      }
      ended = true;
      runs.remove(this);
      long nanos = System.nanoTime() - submitted;
      tell(
          new Done(
              finish,
              text(hash, 0, position),
              "",
              List.of(),
              new Usage(1, 0, position, 0, resumed),
              new Timings(started - submitted, nanos, nanos),
              List.of()));
    }

    synchronized void fail(Failure failure, String message) {
      if (!ended) {
        ended = true;
        runs.remove(this);
        tell(new Failed(failure, message));
      }
    }

    private void tell(GenerateEvent event) {
      try {
        listener.accept(event);
      } catch (RuntimeException e) {
        log.error("a listener threw", TraceOnly.of(e));
      }
    }
  }
}
