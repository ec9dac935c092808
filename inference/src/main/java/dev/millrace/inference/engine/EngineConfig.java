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
 */
public record EngineConfig(
    int maxSequences,
    int tokenBudget,
    int maxChunk,
    boolean prefixCache,
    int maxBypass,
    int stepAttempts) {

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
  }

  public static EngineConfig defaults() {
    return new EngineConfig(256, 2048, 1024, true, 64, 3);
  }

  public EngineConfig withMaxSequences(int value) {
    return new EngineConfig(value, tokenBudget, maxChunk, prefixCache, maxBypass, stepAttempts);
  }

  public EngineConfig withTokenBudget(int value) {
    return new EngineConfig(maxSequences, value, maxChunk, prefixCache, maxBypass, stepAttempts);
  }

  public EngineConfig withMaxChunk(int value) {
    return new EngineConfig(maxSequences, tokenBudget, value, prefixCache, maxBypass, stepAttempts);
  }

  public EngineConfig withPrefixCache(boolean value) {
    return new EngineConfig(maxSequences, tokenBudget, maxChunk, value, maxBypass, stepAttempts);
  }

  public EngineConfig withMaxBypass(int value) {
    return new EngineConfig(maxSequences, tokenBudget, maxChunk, prefixCache, value, stepAttempts);
  }

  public EngineConfig withStepAttempts(int value) {
    return new EngineConfig(maxSequences, tokenBudget, maxChunk, prefixCache, maxBypass, value);
  }

  private static void require(boolean holds, String name, int value, String range) {
    if (!holds) {
      throw new IllegalArgumentException(name + " is " + value + ", it must be " + range);
    }
  }
}
