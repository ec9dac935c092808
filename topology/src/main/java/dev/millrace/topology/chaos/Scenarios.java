package dev.millrace.topology.chaos;

import dev.millrace.topology.Environment;
import dev.millrace.topology.chaos.FaultPlan.Step;
import java.io.IOException;
import java.io.Reader;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.OptionalLong;
import java.util.Properties;

/** Runs that measure one thing: how long output stays away. */
final class Scenarios {
  private static final double RATE = 12;
  private static final double TOKENS_PER_SECOND = 60;
  private static final int SHORT_ANSWER = 60;
  private static final int LONG_ANSWER = 600;
  static final Duration PAUSE = Duration.ofSeconds(20);

  private Scenarios() {}

  /** What the broker and the workers of a scenario are told. */
  record Settings(Map<String, String> broker, Map<String, String> worker) {}

  /** A broker as it comes; only what the local broker has for want of others is kept. */
  static Settings stock() {
    return new Settings(
        Map.of(
            "group.initial.rebalance.delay.ms", "3000",
            "group.min.session.timeout.ms", "6000",
            "group.streams.min.session.timeout.ms", "45000",
            "group.streams.session.timeout.ms", "45000",
            "group.streams.min.heartbeat.interval.ms", "5000",
            "group.streams.heartbeat.interval.ms", "5000",
            "group.streams.initial.rebalance.delay.ms", "3000"),
        Map.of());
  }

  /** A broker with deploy/broker.properties, and workers that make use of it. */
  static Settings quick(String protocol) {
    Map<String, String> worker = new HashMap<>();
    if (protocol.equals("classic")) {
      worker.put("kafka.session.timeout.ms", "3000");
      worker.put("kafka.heartbeat.interval.ms", "750");
    }
    return new Settings(read(Environment.home().resolve("deploy/broker.properties")), worker);
  }

  private static Map<String, String> read(Path file) {
    Properties properties = new Properties();
    try (Reader reader = Files.newBufferedReader(file)) {
      properties.load(reader);
    } catch (IOException e) {
      throw new UncheckedIOException("cannot read " + file, e);
    }
    Map<String, String> values = new HashMap<>();
    properties.stringPropertyNames().forEach(n -> values.put(n, properties.getProperty(n)));
    return values;
  }

  /** Two workers, of which one is killed, again and again. */
  static ChaosOptions failover(
      long seed, int kills, String guarantee, String protocol, Settings settings) {
    return new ChaosOptions(
        seed,
        PAUSE.multipliedBy(kills * 2L + 1),
        guarantee,
        protocol,
        2,
        RATE,
        TOKENS_PER_SECOND,
        SHORT_ANSWER,
        List.of(Fault.KILL),
        PAUSE,
        settings.broker(),
        settings.worker());
  }

  /** What is wrong with a run of {@link #failover}, beside what is wrong with any. */
  static List<String> failoverFailures(ChaosReport report, List<Step> plan, long limitMs) {
    List<String> failures = new ArrayList<>(unmeasured(report, plan, Fault.KILL));
    for (long ms : report.recoveries(Fault.KILL)) {
      if (ms > limitMs) {
        failures.add("output stayed away for " + ms + " ms, more than " + limitMs);
      }
    }
    return failures;
  }

  /** What is wrong with a run of {@link #rolling}, beside what is wrong with any. */
  static List<String> rollingFailures(ChaosReport report, List<Step> plan, long limitMs) {
    List<String> failures = new ArrayList<>(unmeasured(report, plan, Fault.TERMINATE));
    OptionalLong longer = report.longestWaitBeyondNormal();
    if (longer.isEmpty()) {
      failures.add("no prompt was answered before the first restart, or none after it");
    } else if (longer.getAsLong() > limitMs) {
      failures.add("a prompt waited " + longer.getAsLong() + " ms longer than before");
    }
    return failures;
  }

  /** A fault that came while nothing was in flight measures nothing. */
  private static List<String> unmeasured(ChaosReport report, List<Step> plan, Fault fault) {
    long planned = plan.stream().filter(step -> step.fault() == fault).count();
    int measured = report.recoveries(fault).size();
    return planned > 0 && measured == planned
        ? List.of()
        : List.of(fault + ": " + measured + " recoveries were measured of " + planned + " planned");
  }

  /** Three workers under load, told to end and started again one after the other. */
  static ChaosOptions rolling(long seed, String guarantee, String protocol, Settings settings) {
    return new ChaosOptions(
        seed,
        PAUSE.multipliedBy(6),
        guarantee,
        protocol,
        3,
        RATE,
        TOKENS_PER_SECOND,
        LONG_ANSWER,
        List.of(Fault.TERMINATE),
        PAUSE,
        settings.broker(),
        settings.worker());
  }
}
