package dev.millrace.inference.api;

/**
 * Log-probabilities at one generated token, before penalties, temperature and filters.
 *
 * @param topTokens the most likely tokens, best first; as many as asked for
 */
public record TokenLogprob(int token, float logprob, int[] topTokens, float[] topLogprobs) {}
