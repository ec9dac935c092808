package dev.millrace.topology;

import dev.millrace.topology.Topics.Names;
import java.io.IOException;
import java.io.Reader;
import java.net.URI;
import java.net.URISyntaxException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.regex.Pattern;
import java.util.regex.PatternSyntaxException;
import org.jspecify.annotations.Nullable;

/**
 * The worker's settings: one properties file, overridden by environment variables. {@link Settings}
 * lists the keys of our own. Beside them stand {@code kafka.*}, which goes to Kafka Streams under
 * Kafka's own names (its {@code producer.}, {@code main.consumer.}, {@code admin.} prefixes
 * included), and {@code registry.*} and {@code serde.*}, which go to the serde. Any other key is
 * refused.
 */
public final class WorkerConfig {
  /** Environment variables that begin so override the file. */
  public static final String VARIABLE_PREFIX = "MILLRACE_";

  private static final String KAFKA = "kafka.";
  private static final String REGISTRY = "registry.";
  private static final String SERDE = "serde.";
  private static final Duration LONGEST = Duration.ofDays(365);

  /** Progress is held in Java arrays and Kafka's sizes are ints: leave room above. */
  private static final long MOST_BYTES = 1L << 30;

  private static final String TIMINGS = "engine-timings";
  private static final String NO_TIMINGS = "none";

  private final Map<String, String> values;

  /**
   * How much work the engine may hold.
   *
   * @param tokens 0: no limit
   */
  public record Window(int prompts, long tokens, long bytes) {}

  /** When generated tokens are saved, and how many bytes of them a second. */
  public record Save(int tokens, Duration interval, long bytesPerSecond, int ahead) {}

  /** How long and how many ids of answered prompts are remembered, for each partition. */
  public record Dedup(Duration retention, int maxIds) {}

  /**
   * How the engine runs.
   *
   * @param lowShare of the tokens, for lower priorities
   * @param kvBlocks 0: as many as there is room for
   * @param threads that compute
   * @param device {@code cpu} or {@code cuda:N}
   * @param dtype of linear layers; which there are the device says
   * @param kvDtype of keys and values, likewise
   * @param cudaGraphs whether a GPU is given decode steps as graphs
   * @param invariant whether answers depend on their prompts alone, to the byte
   * @param e4m3Prefill whether prompts are multiplied in e4m3 over an FP8 cache
   * @param timings folder of what was timed at earlier starts; null: that is not kept
   */
  public record EngineSettings(
      int maxSequences,
      int tokenBudget,
      int maxChunk,
      boolean prefixCache,
      double lowShare,
      int kvBlocks,
      int threads,
      String device,
      String dtype,
      String kvDtype,
      boolean cudaGraphs,
      boolean invariant,
      boolean e4m3Prefill,
      @Nullable Path timings) {}

  /**
   * What happens to a prompt that the engine failed.
   *
   * @param crashAttempts crashes that a prompt survives, plus one, when it ran alone in them
   */
  public record Retry(int attempts, Duration backoff, int crashAttempts) {}

  private WorkerConfig(Map<String, String> values) {
    this.values = Map.copyOf(values);
    check();
  }

  /**
   * Reads a properties file; MILLRACE_ variables of the environment override what stands in it.
   *
   * @throws ConfigException if it cannot be read or a setting is wrong
   */
  public static WorkerConfig load(Path file) {
    Properties properties = new Properties();
    try (Reader reader = Files.newBufferedReader(file)) {
      properties.load(reader);
    } catch (IOException | IllegalArgumentException e) {
      throw new ConfigException("cannot read the settings in " + file + ": " + e, e);
    }
    Map<String, String> values = new HashMap<>();
    properties.stringPropertyNames().forEach(n -> values.put(n, properties.getProperty(n)));
    return of(values, Environment.overrides());
  }

  /** These settings alone, whatever the environment says. */
  public static WorkerConfig of(Map<String, String> values) {
    return of(values, Map.of());
  }

  /** These settings, overridden by the MILLRACE_ variables of an environment. */
  static WorkerConfig of(Map<String, String> values, Map<String, String> environment) {
    Map<String, String> merged = new HashMap<>(values);
    environment.forEach(
        (variable, value) -> {
          if (variable.startsWith(VARIABLE_PREFIX)) {
            merged.put(keyOf(variable), value);
          }
        });
    return new WorkerConfig(merged);
  }

  /** The environment variable that overrides a setting. */
  public static String variable(String setting) {
    return VARIABLE_PREFIX + setting.toUpperCase(Locale.ROOT).replace('.', '_');
  }

  /**
   * What must differ between workers with these settings on one machine: the folder of their state,
   * their status servers, which a supervisor asks, and their names in the group if they have any.
   *
   * @param label which of the workers it is
   */
  public Map<String, String> forWorker(String label) {
    Map<String, String> own = new HashMap<>();
    own.put(Settings.STATUS_HOST.name(), "127.0.0.1");
    own.put(Settings.STATUS_PORT.name(), "0");
    own.put("kafka.state.dir", stateFolder().resolve("worker-" + label).toString());
    Path timings = timings();
    if (timings != null) {
      own.put(Settings.TIMINGS.name(), timings.toString()); // of all workers together
    }
    values.forEach(
        (name, value) -> {
          if (name.startsWith(KAFKA) && name.endsWith("group.instance.id")) {
            own.put(name, value + "-" + label);
          }
        });
    return own;
  }

  private static String keyOf(String variable) {
    for (Setting setting : Settings.ALL) {
      if (setting.variable().equals(variable)) {
        return setting.name();
      }
    }
    return variable.substring(VARIABLE_PREFIX.length()).toLowerCase(Locale.ROOT).replace('_', '.');
  }

  /** These settings with some replaced. */
  public WorkerConfig with(Map<String, String> replacements) {
    Map<String, String> merged = new HashMap<>(values);
    merged.putAll(replacements);
    return new WorkerConfig(merged);
  }

  private void check() {
    List<String> known = new ArrayList<>();
    Settings.ALL.forEach(s -> known.add(s.name()));
    for (String key : values.keySet()) {
      if (!known.contains(key) && !passedOn(key)) {
        throw new ConfigException(
            "the setting '%s' is unknown; the nearest known one is '%s' (Kafka's own settings begin"
                    .formatted(key, Setting.nearest(key, known))
                + " with 'kafka.')");
      }
    }
    KafkaNames.check(kafka().keySet());
    if (bootstrapServers().isEmpty()) {
      throw new ConfigException(
          "kafka.bootstrap.servers is not set: give the broker's address, for example"
              + " kafka.bootstrap.servers=localhost:9092");
    }
    String guarantee = kafka().getOrDefault("processing.guarantee", "at_least_once");
    if (!guarantee.equals("at_least_once") && !guarantee.equals("exactly_once_v2")) {
      throw new ConfigException(
          "kafka.processing.guarantee is '%s': it must be at_least_once or exactly_once_v2"
              .formatted(guarantee));
    }
    // Every getter once, so that a wrong value is found here and not in the middle of the work.
    topics();
    window();
    save();
    dedup();
    retry();
    engine();
    maxPromptBytes();
    maxTokens();
    temperature();
    topP();
    drainGrace();
    statusPort();
    jsonLogs();
    stuckAfter();
    partitions();
    replicationFactor();
    streamThreads();
    replyTopics();
    cloudEventsSource();
    chunksInterval();
    kafkaNumber("commit.interval.ms", KafkaSettings.COMMIT_MS, 1);
  }

  private static boolean passedOn(String key) {
    return (key.startsWith(KAFKA) && key.length() > KAFKA.length())
        || (key.startsWith(REGISTRY) && key.length() > REGISTRY.length())
        || (key.startsWith(SERDE) && key.length() > SERDE.length());
  }

  public String bootstrapServers() {
    return kafka().getOrDefault("bootstrap.servers", "").strip();
  }

  /** Names the consumer group, the changelogs and the transactional ids. */
  public String applicationId() {
    return kafka().getOrDefault("application.id", "millrace").strip();
  }

  public boolean exactlyOnce() {
    return "exactly_once_v2".equals(kafka().get("processing.guarantee"));
  }

  /** Whether the workers form a group by Kafka's streams protocol instead of the classic one. */
  public boolean streamsProtocol() {
    return "streams".equalsIgnoreCase(kafka().getOrDefault("group.protocol", "classic"));
  }

  public Path modelPath() {
    String path = Settings.MODEL_PATH.text(values);
    if (path.isEmpty()) {
      throw new ConfigException(
          "model.path is not set: give the folder of a Hugging Face checkpoint");
    }
    return Path.of(path);
  }

  /** What prompts may ask for by name; empty: the name of the model's folder. */
  public String modelName() {
    return Settings.MODEL_NAME.text(values);
  }

  public Names topics() {
    Names names =
        new Names(
            topic(Settings.PROMPTS),
            topic(Settings.CANCELS),
            topic(Settings.COMPLETIONS),
            topic(Settings.TOOL_CALLS),
            topic(Settings.CHUNKS),
            topic(Settings.DEAD_LETTERS));
    if (new HashSet<>(names.all()).size() < names.all().size()) {
      throw new ConfigException(
          "two of the topics.* settings name the same topic, each must be one of its own: "
              + names.all());
    }
    return names;
  }

  private String topic(Setting setting) {
    String name = setting.text(values);
    if (name.isEmpty() || name.length() > 249 || !name.matches("[a-zA-Z0-9._-]+")) {
      throw new ConfigException(
          "%s is '%s': a topic's name has 1 to 249 letters, digits, '.', '_' or '-'"
              .formatted(setting.name(), name));
    }
    return name;
  }

  /** Names that topics for replies must match; one that matches nothing where there are none. */
  public Pattern replyTopics() {
    String text = Settings.REPLY_TOPICS.text(values);
    try {
      return Pattern.compile(text.isEmpty() ? "(?!)" : text);
    } catch (PatternSyntaxException e) {
      throw new ConfigException(
          "%s is '%s', which is no regular expression: %s"
              .formatted(Settings.REPLY_TOPICS.name(), text, e.getDescription()),
          e);
    }
  }

  /** What outgoing CloudEvents name as their source; empty: none go out. */
  public String cloudEventsSource() {
    String text = Settings.CLOUDEVENTS_SOURCE.text(values);
    try {
      return new URI(text).toString();
    } catch (URISyntaxException e) {
      throw new ConfigException(
          "%s is '%s': it must be a URI or the path of one, for example /millrace/production"
              .formatted(Settings.CLOUDEVENTS_SOURCE.name(), text),
          e);
    }
  }

  /** Least time between two chunks of an answer. */
  public Duration chunksInterval() {
    return Settings.CHUNKS_INTERVAL.duration(values, Duration.ofHours(1));
  }

  public int partitions() {
    return Settings.PARTITIONS.integer(values, 1, 100_000);
  }

  public short replicationFactor() {
    return (short) Settings.REPLICATION.integer(values, -1, Short.MAX_VALUE);
  }

  public Window window() {
    return new Window(
        // What a generator takes: more would come back as failures of the engine.
        Settings.WINDOW_PROMPTS.integer(values, 1, 100_000),
        Settings.WINDOW_TOKENS.number(values, 0, Long.MAX_VALUE),
        windowBytes());
  }

  private long windowBytes() {
    long bytes = Settings.WINDOW_BYTES.bytes(values, 0, Long.MAX_VALUE);
    return bytes > 0 ? bytes : Math.max(1, Runtime.getRuntime().maxMemory() / 16);
  }

  public Save save() {
    return new Save(
        Settings.SAVE_TOKENS.integer(values, 1, Integer.MAX_VALUE),
        Settings.SAVE_INTERVAL.duration(values, LONGEST),
        Settings.SAVE_BYTES.bytes(values, 1024, Long.MAX_VALUE),
        Settings.SAVE_AHEAD.integer(values, 0, Integer.MAX_VALUE));
  }

  public Dedup dedup() {
    return new Dedup(
        Settings.DEDUP_RETENTION.duration(values, LONGEST),
        Settings.DEDUP_IDS.integer(values, 0, 50_000_000));
  }

  public Retry retry() {
    return new Retry(
        Settings.ATTEMPTS.integer(values, 1, 1_000_000),
        Settings.BACKOFF.duration(values, Duration.ofHours(1)),
        Settings.CRASH_ATTEMPTS.integer(values, 1, 1_000_000));
  }

  /** How the engine runs. */
  public EngineSettings engine() {
    int sequences = Settings.SEQUENCES.integer(values, 1, 65_536);
    int budget = Settings.TOKEN_BUDGET.integer(values, 1, 1 << 24);
    if (budget < sequences) {
      throw new ConfigException(
          "%s is %d: it must be at least %s, which is %d"
              .formatted(
                  Settings.TOKEN_BUDGET.name(), budget, Settings.SEQUENCES.name(), sequences));
    }
    int threads = Settings.THREADS.integer(values, 0, 4096);
    return new EngineSettings(
        sequences,
        budget,
        Settings.MAX_CHUNK.integer(values, 1, 1 << 24),
        Settings.PREFIX_CACHE.flag(values),
        real(Settings.LOW_SHARE, 0, 0.9),
        Settings.KV_BLOCKS.integer(values, 0, Integer.MAX_VALUE),
        threads == 0 ? Runtime.getRuntime().availableProcessors() : threads,
        device(),
        Settings.DTYPE.text(values).toLowerCase(Locale.ROOT),
        Settings.KV_DTYPE.text(values).toLowerCase(Locale.ROOT),
        Settings.CUDA_GRAPHS.flag(values),
        Settings.INVARIANT.flag(values),
        Settings.E4M3_PREFILL.flag(values),
        timings());
  }

  private @Nullable Path timings() {
    return timings(Settings.TIMINGS.text(values), stateFolder());
  }

  private static @Nullable Path timings(String folder, Path state) {
    if (folder.equals(NO_TIMINGS)) {
      return null;
    }
    return folder.isEmpty() ? state.resolve(TIMINGS) : Path.of(folder);
  }

  private Path stateFolder() {
    String folder = kafka().get("state.dir");
    return folder == null ? defaultStateFolder() : Path.of(folder);
  }

  private static Path defaultStateFolder() {
    return Environment.temporaryFolder().resolve("kafka-streams");
  }

  /** Where timings are kept without a worker, by the text of the setting; null: nowhere. */
  public static @Nullable Path timings(String folder) {
    return timings(folder, defaultStateFolder());
  }

  private String device() {
    String device = Settings.DEVICE.text(values);
    if (!device.matches("cpu|cuda:[0-9]{1,4}")) {
      throw new ConfigException(
          "%s is '%s': it must be cpu, or cuda:N for the N-th GPU"
              .formatted(Settings.DEVICE.name(), device));
    }
    return device;
  }

  /** After so long without a step or a poll the worker is not live. */
  public Duration stuckAfter() {
    return Settings.STUCK_AFTER.duration(values, Duration.ofDays(1));
  }

  /** Whether log lines are JSON objects. */
  public boolean jsonLogs() {
    String format = Settings.LOG_FORMAT.text(values);
    return switch (format) {
      case "json" -> true;
      case "plain" -> false;
      default ->
          throw new ConfigException(
              "%s is '%s': it must be plain or json".formatted(Settings.LOG_FORMAT.name(), format));
    };
  }

  public int maxPromptBytes() {
    return (int) Settings.MAX_BYTES.bytes(values, 1024, MOST_BYTES);
  }

  /** Most tokens to generate where a prompt does not say. */
  public int maxTokens() {
    return Settings.MAX_TOKENS.integer(values, 1, Integer.MAX_VALUE);
  }

  /** NaN where it is left to the model. */
  public double temperature() {
    return real(Settings.TEMPERATURE, 0, 100);
  }

  /** NaN where it is left to the model. */
  public double topP() {
    return real(Settings.TOP_P, Double.MIN_VALUE, 1);
  }

  private double real(Setting setting, double least, double most) {
    String text = setting.text(values);
    if (text.isEmpty()) {
      return Double.NaN;
    }
    try {
      double value = Double.parseDouble(text);
      if (value >= least && value <= most) {
        return value;
      }
    } catch (NumberFormatException e) {
      // Falls through: the message below fits both cases.
    }
    throw new ConfigException(
        "%s is '%s': it must be a number from %s to %s"
            .formatted(setting.name(), text, least == Double.MIN_VALUE ? "above 0" : least, most));
  }

  public Duration drainGrace() {
    return Settings.DRAIN_GRACE.duration(values, Duration.ofDays(1));
  }

  public String statusHost() {
    return Settings.STATUS_HOST.text(values);
  }

  /** 0: any free one; -1: no status server. */
  public int statusPort() {
    return Settings.STATUS_PORT.integer(values, -1, 65_535);
  }

  /** The class of the events' serde. */
  public String serdeClass() {
    return Settings.SERDE.text(values);
  }

  public int streamThreads() {
    return kafkaNumber("num.stream.threads", 1, 1);
  }

  private int kafkaNumber(String name, int standard, int least) {
    String text = kafka().getOrDefault(name, Integer.toString(standard)).strip();
    try {
      int value = Integer.parseInt(text);
      if (value >= least) {
        return value;
      }
    } catch (NumberFormatException e) {
      // Falls through: the message below fits both cases.
    }
    throw new ConfigException(
        "kafka.%s is '%s': it must be a whole number from %d".formatted(name, text, least));
  }

  /** What the file says for Kafka, without our prefix. */
  public Map<String, String> kafka() {
    return under(KAFKA);
  }

  /**
   * What the serde is configured with: {@code registry.url} as Confluent's {@code
   * schema.registry.url}, the rest of {@code registry.*} and {@code serde.*} without the prefix.
   */
  public Map<String, String> serdeSettings() {
    Map<String, String> settings = under(REGISTRY);
    settings.remove("url");
    settings.putAll(under(SERDE));
    settings.remove("class");
    String url = Settings.REGISTRY.text(values);
    if (!url.isEmpty()) {
      settings.put("schema.registry.url", url);
    }
    return settings;
  }

  private Map<String, String> under(String prefix) {
    Map<String, String> found = new TreeMap<>();
    values.forEach(
        (key, value) -> {
          if (key.startsWith(prefix)) {
            found.put(key.substring(prefix.length()), value);
          }
        });
    return found;
  }

  /** For readers of single settings within the package. */
  Map<String, String> values() {
    return values;
  }

  /** The settings as they stand in the file, without what may be a secret. */
  @Override
  public String toString() {
    Map<String, String> shown = new TreeMap<>();
    values.forEach(
        (key, value) ->
            shown.put(
                key,
                key.matches("(?i).*(password|secret|jaas|token|user\\.info|\\.key).*")
                    ? "[hidden]"
                    // Credentials may stand in a URL too.
                    : value.replaceAll("(?<=://)[^,\\s]*@", "")));
    return shown.toString();
  }
}
