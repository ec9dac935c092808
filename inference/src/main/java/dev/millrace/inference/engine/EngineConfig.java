package dev.millrace.inference.engine;

/**
 * How an {@link Engine} schedules. {@link #defaults()} and the {@code with…} methods build one. The
 * KV memory is the {@link Runner}'s: its {@link Runner.Info} says how many blocks of what size.
 *
 * @param maxSequences most sequences that run at once; default 256
 * @param tokenBudget most query tokens of one step, over all sequences; at least maxSequences, so
 *     that each running sequence gets a token in each step; default 2048
 * @param maxChunk most query tokens of one sequence in one step while others wait to be admitted,
 *     so that a long prompt does not keep short ones out; default 1024
 * @param prefixCache whether KV blocks of finished sequences are kept and shared; default true
 * @param maxBypass how many later sequences may be admitted before a waiting one that does not fit
 *     yet; then nothing passes it any more; 0: strictly in order; default 64
 * @param stepAttempts failed steps that a sequence survives when it ran alone in them, plus one;
 *     default 3
 * @param lowShare share of the admitted tokens that goes to waiting sequences of lower priority
 *     while some of a higher one wait as well, oldest first, so that none waits for ever; 0: a
 *     higher priority always goes first; default 0.1
 */
public record EngineConfig(
    int maxSequences,
    int tokenBudget,
    int maxChunk,
    boolean prefixCache,
    int maxBypass,
    int stepAttempts,
    double lowShare) {

  public EngineConfig {
    require(maxSequences >= 1, "maxSequences", maxSequences, "1 or more");
    require(
        tokenBudget >= maxSequences,
        "tokenBudget",
        tokenBudget,
        "at least maxSequences (" + maxSequences + ")");
    require(maxChunk >= 1, "maxChunk", maxChunk, "1 or more");
    require(maxBypass >= 0, "maxBypass", maxBypass, "0 (strictly in order) or more");
    require(stepAttempts >= 1, "stepAttempts", stepAttempts, "1 or more");
    require(lowShare >= 0 && lowShare < 1, "lowShare", lowShare, "0 or more and less than 1");
  }

  public static EngineConfig defaults() {
    return new EngineConfig(256, 2048, 1024, true, 64, 3, 0.1);
  }

  public EngineConfig withMaxSequences(int value) {
    return new EngineConfig(
        value, tokenBudget, maxChunk, prefixCache, maxBypass, stepAttempts, lowShare);
  }

  public EngineConfig withTokenBudget(int value) {
    return new EngineConfig(
        maxSequences, value, maxChunk, prefixCache, maxBypass, stepAttempts, lowShare);
  }

  public EngineConfig withMaxChunk(int value) {
    return new EngineConfig(
        maxSequences, tokenBudget, value, prefixCache, maxBypass, stepAttempts, lowShare);
  }

  public EngineConfig withPrefixCache(boolean value) {
    return new EngineConfig(
        maxSequences, tokenBudget, maxChunk, value, maxBypass, stepAttempts, lowShare);
  }

  public EngineConfig withMaxBypass(int value) {
    return new EngineConfig(
        maxSequences, tokenBudget, maxChunk, prefixCache, value, stepAttempts, lowShare);
  }

  public EngineConfig withStepAttempts(int value) {
    return new EngineConfig(
        maxSequences, tokenBudget, maxChunk, prefixCache, maxBypass, value, lowShare);
  }

  public EngineConfig withLowShare(double value) {
    return new EngineConfig(
        maxSequences, tokenBudget, maxChunk, prefixCache, maxBypass, stepAttempts, value);
  }

  private static void require(boolean holds, String name, Number value, String range) {
    if (!holds) {
      throw new IllegalArgumentException(name + " is " + value + ", it must be " + range);
    }
  }
}
