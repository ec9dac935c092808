package dev.millrace.inference.api;

import java.util.List;

/**
 * How tokens are chosen. A token is a function of these values, the sequence so far, and (seed,
 * position): never of the batch, the chunking or the clock.
 *
 * @param temperature 0 is greedy; otherwise logits are divided by it; at most 100
 * @param topP keep the smallest set of tokens whose probability reaches it; (0, 1]; 1 is off
 * @param topK keep the k most likely tokens; 0 is off
 * @param minP drop tokens below minP times the largest probability; [0, 1]; 0 is off
 * @param repetitionPenalty divides positive and multiplies negative logits of tokens that occur in
 *     the prompt or the output; &gt; 0; 1 is off
 * @param presencePenalty subtracted once from the logit of a token that occurs in the output; [-2,
 *     2]
 * @param frequencyPenalty subtracted for each occurrence in the output; [-2, 2]
 * @param seed of the random stream
 * @param maxTokens most tokens to generate, at least 1
 * @param minTokens no stop token is drawn before this many were generated
 * @param stop strings that end the output; they are not part of it
 * @param ignoreEos stop tokens do not end the output
 * @param logprobs -1: none; 0: of the chosen token; n: of the n most likely as well; at most 20
 */
public record SamplingParams(
    float temperature,
    float topP,
    int topK,
    float minP,
    float repetitionPenalty,
    float presencePenalty,
    float frequencyPenalty,
    long seed,
    int maxTokens,
    int minTokens,
    List<String> stop,
    boolean ignoreEos,
    int logprobs) {

  /** Most alternatives whose log-probabilities a request may ask for. */
  public static final int MAX_LOGPROBS = 20;

  /** Most stop strings: each is looked for at every character. */
  public static final int MAX_STOPS = 64;

  /** Most characters of one. */
  public static final int MAX_STOP_LENGTH = 1_000;

  public SamplingParams {
    stop = List.copyOf(stop);
    require(temperature >= 0 && temperature <= 100, "temperature", temperature, "0 to 100");
    require(topP > 0 && topP <= 1, "top_p", topP, "above 0, at most 1");
    require(topK >= 0, "top_k", topK, "0 (off) or more");
    require(minP >= 0 && minP <= 1, "min_p", minP, "0 to 1");
    require(
        repetitionPenalty > 0 && repetitionPenalty <= 100,
        "repetition_penalty",
        repetitionPenalty,
        "above 0, at most 100");
    require(
        presencePenalty >= -2 && presencePenalty <= 2,
        "presence_penalty",
        presencePenalty,
        "-2 to 2");
    require(
        frequencyPenalty >= -2 && frequencyPenalty <= 2,
        "frequency_penalty",
        frequencyPenalty,
        "-2 to 2");
    require(maxTokens >= 1, "max_tokens", maxTokens, "1 or more");
    require(minTokens >= 0 && minTokens <= maxTokens, "min_tokens", minTokens, "0 to max_tokens");
    require(logprobs >= -1 && logprobs <= MAX_LOGPROBS, "logprobs", logprobs, "-1 (none) to 20");
    require(
        stop.size() <= MAX_STOPS,
        "the number of stop strings",
        stop.size(),
        "at most " + MAX_STOPS);
    for (String s : stop) {
      require(
          s.length() <= MAX_STOP_LENGTH,
          "the length of a stop string",
          s.length(),
          "at most " + MAX_STOP_LENGTH);
      if (s.isEmpty()) {
        throw new InvalidRequestException("a stop string is empty: leave it out");
      }
    }
  }

  /** Greedy, at most {@code maxTokens} tokens, nothing else switched on. */
  public static SamplingParams greedy(int maxTokens) {
    return new SamplingParams(0, 1, 0, 0, 1, 0, 0, 0, maxTokens, 0, List.of(), false, -1);
  }

  /** Whether a token's logit depends on which tokens came before. */
  public boolean hasPenalties() {
    return repetitionPenalty != 1 || presencePenalty != 0 || frequencyPenalty != 0;
  }

  private static void require(boolean holds, String name, Object value, String range) {
    // NaN fails every comparison above and so ends here too.
    if (!holds) {
      throw new InvalidRequestException(name + " is " + value + ", it must be " + range);
    }
  }
}
