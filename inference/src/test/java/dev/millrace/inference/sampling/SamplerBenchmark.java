package dev.millrace.inference.sampling;

import dev.millrace.inference.api.SamplingParams;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;

/**
 * Time of a token over a vocabulary of 128,256. Run by hand: {@code java -cp …
 * dev.millrace.inference.sampling.SamplerBenchmark}.
 */
final class SamplerBenchmark {
  private static final int VOCAB = 128_256;

  private SamplerBenchmark() {}

  public static void main(String[] args) {
    Map<String, SamplingParams> cases = new LinkedHashMap<>();
    cases.put("greedy", params(0, 1, 0, 0, 1, -1));
    cases.put("greedy, repetition penalty", params(0, 1, 0, 0, 1.1f, -1));
    cases.put("greedy, 20 logprobs", params(0, 1, 0, 0, 1, 20));
    cases.put("temperature 1", params(1, 1, 0, 0, 1, -1));
    cases.put("temperature 1, top-k 50", params(1, 1, 50, 0, 1, -1));
    cases.put("temperature 0.6, top-p 0.95", params(0.6f, 0.95f, 0, 0, 1, -1));
    cases.put("temperature 3, top-p 0.95 (flat)", params(3, 0.95f, 0, 0, 1, -1));
    cases.put("temperature 1, min-p 0.05", params(1, 1, 0, 0.05f, 1, -1));
    float[] logits = new float[VOCAB];
    Random random = new Random(1);
    for (int i = 0; i < VOCAB; i++) {
      logits[i] = (float) random.nextGaussian() * 2.5f;
    }
    for (int i = 0; i < 30; i++) {
      logits[random.nextInt(VOCAB)] = 10 + random.nextInt(6);
    }
    Sampler sampler = new Sampler(VOCAB);
    int[] prompt = random.ints(4000, 0, VOCAB).toArray();
    for (boolean shown : new boolean[] {false, true}) {
      cases.forEach((name, params) -> measure(name, sampler, logits, prompt, params, shown));
    }
  }

  private static void measure(
      String name,
      Sampler sampler,
      float[] logits,
      int[] prompt,
      SamplingParams params,
      boolean shown) {
    SamplingState state = new SamplingState(params, prompt, new int[0], new int[0]);
    long best = Long.MAX_VALUE;
    for (int i = 0; i < 200; i++) {
      long start = System.nanoTime();
      state.append(sampler.sample(logits, 0, state));
      best = Math.min(best, System.nanoTime() - start);
    }
    if (shown) {
      System.out.printf("%-36s %8.1f µs (best of 200)%n", name, best / 1e3);
    }
  }

  private static SamplingParams params(
      float temperature, float topP, int topK, float minP, float repetition, int logprobs) {
    return new SamplingParams(
        temperature, topP, topK, minP, repetition, 0, 0, 1, 100_000, 0, List.of(), true, logprobs);
  }
}
