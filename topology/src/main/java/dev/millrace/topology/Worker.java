package dev.millrace.topology;

import dev.millrace.inference.api.Generator;
import dev.millrace.inference.api.SamplingParams;
import dev.millrace.topology.StatusServer.Health;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import io.opentelemetry.api.GlobalOpenTelemetry;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.common.errors.AuthenticationException;
import org.apache.kafka.common.errors.AuthorizationException;
import org.apache.kafka.streams.CloseOptions;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.ThreadMetadata;
import org.apache.kafka.streams.errors.MissingSourceTopicException;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * One worker: a generator behind a Kafka Streams topology. Whoever made the generator closes it,
 * after the worker. Safe for several threads.
 */
public final class Worker implements AutoCloseable {
  private static final Logger log = LoggerFactory.getLogger(Worker.class);

  /** Key of the class that Kafka Streams puts around its consumer under the streams protocol. */
  private static final String CONSUMER_WRAPPER = "__internal.consumer.wrapper__";

  /** More dead threads than this within the time below end the worker. */
  private static final int MOST_REPLACED = 20;

  private static final long REPLACED_WITHIN_NANOS = TimeUnit.MINUTES.toNanos(1);
  private static final Duration LEAVE = Duration.ofSeconds(15);
  private static final Duration SAVE = Duration.ofSeconds(5);
  private static final long POLL_MS = 10;

  /** Where a worker stands; it never goes back. */
  public enum State {
    CREATED,
    STARTING,
    RUNNING,
    DRAINING,
    STOPPED,
    FAILED
  }

  private final WorkerConfig config;
  private final Generator generator;
  private final Gate gate;
  private final OutputLimits limits;
  private final PrometheusMeterRegistry registry =
      new PrometheusMeterRegistry(PrometheusConfig.DEFAULT);
  private final CountDownLatch stopped = new CountDownLatch(1);
  private final AtomicBoolean closing = new AtomicBoolean();
  private final ArrayDeque<Long> replaced = new ArrayDeque<>();
  private volatile State state = State.CREATED;
  private volatile @Nullable String failure;
  private volatile @Nullable KafkaStreams streams;
  private volatile @Nullable EventCodecs codecs;
  private volatile @Nullable BrokerReplies replies;
  private volatile @Nullable StatusServer status;
  private volatile @Nullable StreamsWatch watch;
  private volatile @Nullable WorkerHealth health;
  private volatile @Nullable AbandonedTransactions abandoned;

  public Worker(WorkerConfig config, Generator generator) {
    this.config = config;
    this.generator = generator;
    this.gate = new Gate(config.window());
    this.limits = new OutputLimits(config.maxPromptBytes());
  }

  /**
   * Checks the topics, joins the group and returns; prompts are answered from then on.
   *
   * @throws ConfigException if the broker, the topics or the settings do not allow it
   */
  public synchronized void start() {
    if (state != State.CREATED) {
      throw new IllegalStateException("a worker is started once; this one is " + state);
    }
    state = State.STARTING;
    try {
      TopicCheck.run(config, limits);
      EventCodecs made = new EventCodecs(config);
      codecs = made;
      made.prepare();
      WorkerMetrics metrics = new WorkerMetrics(registry, servedName());
      metrics.watch(gate, generator);
      BrokerReplies sending = BrokerReplies.start(config, metrics);
      replies = sending;
      Services services =
          new Services(
              config,
              generator,
              mapper(),
              gate,
              metrics,
              limits,
              made,
              sending,
              new CloudEvents(config.cloudEventsSource()),
              new Tracing(GlobalOpenTelemetry.get(), config.applicationId()),
              new Quarantine(),
              new SaveBudget(config.save().bytesPerSecond()),
              this::engineFailed);
      KafkaStreams built =
          new KafkaStreams(
              WorkerTopology.of(services),
              new StreamsConfig(properties()),
              new GatedClientSupplier(gate, config.topics().prompts()));
      streams = built;
      StreamsWatch watching = new StreamsWatch(built, registry);
      watch = watching;
      health =
          new WorkerHealth(
              config.stuckAfter(), System::nanoTime, generator::status, watching::look);
      // Kafka Streams puts the process into these ids only where nobody chose them.
      if (config.exactlyOnce() && !config.kafka().containsKey("client.id")) {
        abandoned =
            new AbandonedTransactions(
                config,
                Admin.create(ClientSettings.admin(config)),
                () ->
                    built.metadataForLocalThreads().stream()
                        .map(ThreadMetadata::consumerClientId)
                        .toList());
      }
      built.setUncaughtExceptionHandler(this::threadDied);
      built.setStateListener((now, before) -> streamsBecame(now));
      if (config.statusPort() >= 0) {
        status =
            new StatusServer(
                config.statusHost(),
                config.statusPort(),
                registry::scrape,
                this::live,
                this::ready);
      }
      built.start();
    } catch (RuntimeException e) {
      failure = e.getMessage();
      closeParts(Duration.ZERO);
      become(State.FAILED);
      throw e;
    }
    log.info(
        "worker of group {} serves {} from topic {}",
        config.applicationId(),
        generator.model(),
        config.topics().prompts());
  }

  private String servedName() {
    return config.modelName().isEmpty() ? generator.model() : config.modelName();
  }

  private EventMapper mapper() {
    SamplingParams model = generator.samplingDefaults();
    double temperature = config.temperature();
    double topP = config.topP();
    return new EventMapper(
        servedName(),
        new EventMapper.SamplingDefaults(
            Double.isNaN(temperature) ? model.temperature() : (float) temperature,
            Double.isNaN(topP) ? model.topP() : (float) topP,
            model.topK(),
            config.maxTokens()));
  }

  private Properties properties() {
    Properties properties = KafkaSettings.of(config);
    properties.put(StreamsConfig.PRODUCTION_EXCEPTION_HANDLER_CLASS_CONFIG, Handlers.class);
    properties.put(Handlers.LIMITS, limits);
    if (config.streamsProtocol()) {
      properties.put(
          StreamsConfig.mainConsumerPrefix(CONSUMER_WRAPPER), GatedStreamsConsumer.class);
      properties.put(StreamsConfig.mainConsumerPrefix(GatedStreamsConsumer.GATE), gate);
      properties.put(
          StreamsConfig.mainConsumerPrefix(GatedStreamsConsumer.PROMPTS_TOPIC),
          config.topics().prompts());
    }
    return properties;
  }

  private synchronized void streamsBecame(KafkaStreams.State now) {
    AbandonedTransactions transactions = abandoned;
    if (now == KafkaStreams.State.REBALANCING && transactions != null) {
      transactions.groupChanges();
    }
    if (now == KafkaStreams.State.RUNNING && state == State.STARTING) {
      state = State.RUNNING;
    } else if (now == KafkaStreams.State.ERROR) {
      become(State.FAILED);
    } else if (now == KafkaStreams.State.NOT_RUNNING) {
      become(State.STOPPED);
    }
  }

  /** Ends in a state; the first one stays. */
  private synchronized void become(State end) {
    if (state != State.STOPPED && state != State.FAILED) {
      state = end;
    }
    stopped.countDown();
  }

  private StreamThreadExceptionResponse threadDied(Throwable cause) {
    if (hopeless(cause)) {
      failure = "the worker cannot go on: " + rootOf(cause).getMessage();
      log.error("{}", failure, cause);
      return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
    }
    synchronized (replaced) {
      long now = System.nanoTime();
      replaced.add(now);
      while (now - replaced.getFirst() > REPLACED_WITHIN_NANOS) {
        replaced.removeFirst();
      }
      if (replaced.size() > MOST_REPLACED) {
        failure = "stream threads die again and again: " + rootOf(cause);
        log.error("{}", failure, cause);
        return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
      }
    }
    log.warn("a stream thread died and is replaced; what it had begun is taken up again", cause);
    return StreamThreadExceptionResponse.REPLACE_THREAD;
  }

  private static boolean hopeless(Throwable cause) {
    @Nullable Throwable at = cause;
    for (int depth = 0; at != null && depth < 20; depth++) {
      if (at instanceof AuthorizationException
          || at instanceof AuthenticationException
          || at instanceof MissingSourceTopicException
          || at instanceof Error) {
        return true;
      }
      at = at.getCause();
    }
    return false;
  }

  private static Throwable rootOf(Throwable cause) {
    Throwable at = cause;
    for (int depth = 0; at.getCause() != null && depth < 20; depth++) {
      at = at.getCause();
    }
    return at;
  }

  /** The engine can answer nothing any more: leave at once, so that another worker takes over. */
  private void engineFailed(String why) {
    if (closing.compareAndSet(false, true)) {
      failure = "the engine has failed: " + why;
      log.error("{}: this worker leaves, its prompts go on elsewhere", failure);
      gate.drain();
      // Not on the stream thread, which must end for this to finish.
      Thread.ofPlatform()
          .name("millrace-leave")
          .start(
              () -> {
                become(State.FAILED);
                closeParts(LEAVE);
              });
    }
  }

  public State state() {
    return state;
  }

  /** Why the worker failed; null if it did not. */
  public @Nullable String failure() {
    return failure;
  }

  /** Prompts that are begun and have no outcome yet. */
  public int running() {
    return gate.running();
  }

  /** The port of the status server; -1 if there is none. */
  public int statusPort() {
    StatusServer server = status;
    return server == null ? -1 : server.port();
  }

  /** Waits until prompts are being read, or the worker has ended; says whether it runs. */
  public boolean awaitRunning(Duration timeout) throws InterruptedException {
    long deadline = System.nanoTime() + timeout.toNanos();
    while (state == State.STARTING && System.nanoTime() < deadline) {
      TimeUnit.MILLISECONDS.sleep(POLL_MS);
    }
    return state == State.RUNNING;
  }

  /** Waits until the worker has stopped or failed. */
  public State awaitStopped() throws InterruptedException {
    stopped.await();
    return state;
  }

  /**
   * Stops reading, goes on with what was begun until the grace time is over, saves the rest, and
   * leaves the group: its prompts go on elsewhere from the tokens that were saved.
   *
   * @return whether everything that was begun had its outcome
   */
  public boolean close(Duration grace) {
    if (!closing.compareAndSet(false, true)) {
      awaitQuietly();
      return gate.kept() == 0;
    }
    synchronized (this) {
      if (state == State.RUNNING || state == State.STARTING) {
        state = State.DRAINING;
      }
    }
    boolean drained = true;
    if (state == State.DRAINING) {
      gate.drain();
      log.info("draining {} prompts for up to {} s", gate.running(), grace.toSeconds());
      drained = waitUntil(grace, () -> gate.kept() == 0);
      gate.save();
      waitUntil(SAVE, gate::allSaved);
      if (!drained) {
        log.info("{} prompts are not finished; their progress is saved", gate.running());
      }
    }
    closeParts(LEAVE);
    become(State.STOPPED);
    return drained;
  }

  @Override
  public void close() {
    close(config.drainGrace());
  }

  private void awaitQuietly() {
    try {
      stopped.await();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  private boolean waitUntil(Duration timeout, java.util.function.BooleanSupplier condition) {
    long deadline = System.nanoTime() + timeout.toNanos();
    while (!condition.getAsBoolean()) {
      if (System.nanoTime() >= deadline || state == State.FAILED) {
        return condition.getAsBoolean();
      }
      try {
        TimeUnit.MILLISECONDS.sleep(POLL_MS);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        return condition.getAsBoolean();
      }
    }
    return true;
  }

  private void closeParts(Duration timeout) {
    KafkaStreams running = streams;
    if (running != null) {
      running.close(
          CloseOptions.timeout(timeout)
              .withGroupMembershipOperation(CloseOptions.GroupMembershipOperation.LEAVE_GROUP));
    }
    BrokerReplies sending = replies;
    if (sending != null) {
      sending.close();
    }
    AbandonedTransactions transactions = abandoned;
    if (transactions != null) {
      transactions.close();
    }
    EventCodecs opened = codecs;
    if (opened != null) {
      opened.close();
    }
    StatusServer server = status;
    if (server != null) {
      server.close();
    }
    StreamsWatch watching = watch;
    if (watching != null) {
      watching.close();
    }
    registry.close();
  }

  private Health live() {
    WorkerHealth asked = health;
    return asked == null ? new Health(true, state.name()) : asked.live(situation());
  }

  private Health ready() {
    WorkerHealth asked = health;
    return asked == null ? new Health(false, state.name()) : asked.ready(situation());
  }

  private WorkerHealth.Situation situation() {
    return new WorkerHealth.Situation(state, failure, gate.stalled());
  }
}
