package dev.millrace.inference.bench;

/**
 * What {@link EngineBench} measured. Times are in milliseconds unless they say otherwise.
 *
 * @param seconds from the first submission to the last end
 * @param outputTokens generated
 * @param cachedTokens prompt tokens that came from the prefix cache
 * @param firstToken from a request's submission to its first token, waiting included
 * @param betweenTokens from one token of a request to its next
 */
public record EngineReport(
    double seconds,
    long outputTokens,
    long inputTokens,
    long cachedTokens,
    Samples.Summary firstToken,
    Samples.Summary betweenTokens,
    Steps steps,
    Bound bound) {

  /** Generated tokens a second: all of them, over the time from first submission to last end. */
  public double outputPerSecond() {
    return outputTokens / seconds;
  }

  /** Prompt and generated tokens a second. */
  public double totalPerSecond() {
    return (outputTokens + inputTokens) / seconds;
  }

  /**
   * How the steps went.
   *
   * @param count of them
   * @param graphs those that the device was given as a whole
   * @param meanSequences in a step
   * @param meanTokens in a step
   * @param time from the end of a step to the end of the next
   * @param host what the engine's thread did between two waits for a step
   * @param hostMean bookkeeping of the engine's thread, over all steps
   * @param occupancy share of the time that the device computed; -1 if it does not say
   * @param empty share of the time in which no step was in flight although there was work
   */
  public record Steps(
      long count,
      long graphs,
      double meanSequences,
      double meanTokens,
      Samples.Summary time,
      Samples.Summary host,
      double hostMean,
      double occupancy,
      double empty) {}

  /**
   * How near it came to what the device can do ({@link Roofline}).
   *
   * @param seconds the least that the steps could take together
   * @param memoryShare of those seconds in steps that memory bounds, the rest being arithmetic's
   */
  public record Bound(Ceilings ceilings, double seconds, double memoryShare) {}

  /** The share of what the device can do at most: 1 is the roofline. */
  public double ofRoofline() {
    return bound.seconds() / seconds;
  }
}
