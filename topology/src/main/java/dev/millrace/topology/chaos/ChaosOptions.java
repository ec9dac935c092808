package dev.millrace.topology.chaos;

import java.time.Duration;
import java.util.List;
import java.util.Map;

/**
 * What a run is like. Prompts and faults follow from it alone, seed included.
 *
 * @param length time with prompts and faults; what is under way then is waited for
 * @param guarantee Kafka's processing.guarantee
 * @param protocol Kafka's group.protocol
 * @param workers processes that are to run all the time
 * @param rate prompts a second
 * @param tokensPerSecond that the engine gives each prompt
 * @param longest answer, in tokens
 * @param faults those to choose from
 * @param gap shortest and longest pause between two faults are this and twice this
 * @param broker settings that replace those of the local broker
 * @param worker settings that replace those that the workers have otherwise
 */
public record ChaosOptions(
    long seed,
    Duration length,
    String guarantee,
    String protocol,
    int workers,
    double rate,
    double tokensPerSecond,
    int longest,
    List<Fault> faults,
    Duration gap,
    Map<String, String> broker,
    Map<String, String> worker) {
  /** The name of the model that the workers serve. */
  static final String MODEL = "synthetic";

  public ChaosOptions {
    faults = List.copyOf(faults);
    broker = Map.copyOf(broker);
    worker = Map.copyOf(worker);
  }

  boolean exactlyOnce() {
    return guarantee.equals("exactly_once_v2");
  }
}
