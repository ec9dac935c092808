package dev.millrace.topology.chaos;

import java.time.Duration;
import java.util.List;

/**
 * What a run is like. Prompts and faults follow from it alone, seed included.
 *
 * @param length time with prompts and faults; what is under way then is waited for
 * @param guarantee Kafka's processing.guarantee
 * @param protocol Kafka's group.protocol
 * @param workers processes that are to run all the time
 * @param rate prompts a second
 * @param tokensPerSecond that the engine gives each prompt
 * @param faults those to choose from
 * @param gap shortest and longest pause between two faults are this and twice this
 */
public record ChaosOptions(
    long seed,
    Duration length,
    String guarantee,
    String protocol,
    int workers,
    double rate,
    double tokensPerSecond,
    List<Fault> faults,
    Duration gap) {
  /** The name of the model that the workers serve. */
  static final String MODEL = "synthetic";

  public ChaosOptions {
    faults = List.copyOf(faults);
  }

  boolean exactlyOnce() {
    return guarantee.equals("exactly_once_v2");
  }
}
