package dev.millrace.inference.bench;

import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.api.Scheduling;
import dev.millrace.inference.engine.TokenRequest;
import java.util.List;
import java.util.SplittableRandom;

/**
 * Made-up requests: tokens drawn evenly from the vocabulary, answers of one length whatever the
 * model says. Equal seeds give equal requests.
 *
 * @param requests to serve
 * @param concurrency most of them at one time; 0: all at once
 * @param inputTokens of each prompt
 * @param outputTokens of each answer
 * @param waiting more requests that are submitted behind these with a lower priority, to see what a
 *     queue costs; they are given up when these have ended. Wherever the engine has room for more
 *     than what is measured they would run too, so it needs concurrency 0 and as many requests as
 *     the engine has sequences, or more
 */
public record Load(
    int requests, int concurrency, int inputTokens, int outputTokens, int waiting, long seed) {
  public Load {
    require(requests >= 1, "requests", requests, "1 or more");
    require(concurrency >= 0, "concurrency", concurrency, "0 (all at once) or more");
    require(inputTokens >= 1, "isl", inputTokens, "1 or more");
    require(outputTokens >= 1, "osl", outputTokens, "1 or more");
    require(waiting >= 0, "waiting", waiting, "0 or more");
    if (waiting > 0 && concurrency > 0) {
      throw new IllegalArgumentException(
          "requests can wait only behind ones that are submitted at once: leave concurrency at 0");
    }
  }

  private static void require(boolean holds, String name, int value, String range) {
    if (!holds) {
      throw new IllegalArgumentException(name + " is " + value + ", it must be " + range);
    }
  }

  /** The tokens of a prompt. */
  public int[] prompt(int index, int vocabSize) {
    SplittableRandom random = new SplittableRandom(seed * 1_000_003 + index);
    return random.ints(inputTokens, 0, vocabSize).toArray();
  }

  /** How each answer is drawn: greedily, up to its length. */
  public SamplingParams sampling() {
    return new SamplingParams(
        0, 1, 0, 0, 1, 0, 0, seed, outputTokens, outputTokens, List.of(), true, -1);
  }

  TokenRequest request(int index, int vocabSize) {
    return new TokenRequest(
        "bench-" + index,
        prompt(index, vocabSize),
        new int[0],
        sampling(),
        new int[0],
        Scheduling.ANY);
  }

  /** Requests at one time. */
  public int atOnce() {
    return concurrency == 0 ? requests : Math.min(concurrency, requests);
  }
}
