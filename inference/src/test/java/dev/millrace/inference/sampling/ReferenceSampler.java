package dev.millrace.inference.sampling;

import dev.millrace.inference.api.SamplingParams;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;

/** What the Javadoc of {@link Sampler} says, word for word and without any shortcut. */
final class ReferenceSampler {
  private ReferenceSampler() {}

  static float[] penalised(float[] logits, SamplingState state) {
    SamplingParams params = state.params();
    float[] result = logits.clone();
    for (int token = 0; token < logits.length; token++) {
      int occurs = 0;
      int inOutput = 0;
      for (int p = 0; p < state.position(); p++) {
        if (state.token(p) == token) {
          occurs++;
          inOutput += p >= state.promptLength() ? 1 : 0;
        }
      }
      if (occurs > 0) {
        float penalty = params.repetitionPenalty();
        result[token] = result[token] > 0 ? result[token] / penalty : result[token] * penalty;
      }
      if (inOutput > 0) {
        result[token] -= inOutput * params.frequencyPenalty() + params.presencePenalty();
      }
    }
    if (state.generated() < params.minTokens()) {
      for (int stop : state.stopTokens()) {
        result[stop] = Float.NEGATIVE_INFINITY;
      }
    }
    return result;
  }

  /** The kept tokens, best first. */
  static List<Integer> kept(float[] logits, SamplingParams params) {
    List<Integer> order = new ArrayList<>();
    for (int i = 0; i < logits.length; i++) {
      if (logits[i] != Float.NEGATIVE_INFINITY) {
        order.add(i);
      }
    }
    order.sort(
        Comparator.<Integer>comparingDouble(i -> -(double) (logits[i] + 0f))
            .thenComparingInt(i -> i));
    double max = logits[order.get(0)];
    if (params.topK() > 0 && params.topK() < order.size()) {
      order = order.subList(0, params.topK());
    }
    double total = 0;
    for (int i : order) {
      total += StrictMath.exp((logits[i] - max) / params.temperature());
    }
    List<Integer> kept = new ArrayList<>();
    double sum = 0;
    for (int i : order) {
      double weight = StrictMath.exp((logits[i] - max) / params.temperature());
      if (params.topP() < 1 && sum >= params.topP() * total) {
        break;
      }
      sum += weight;
      if ((logits[i] - max) / params.temperature() >= StrictMath.log(params.minP())) {
        kept.add(i);
      }
    }
    return kept;
  }

  static int sample(float[] logits, SamplingState state) {
    SamplingParams params = state.params();
    float[] row = penalised(logits, state);
    int best = 0;
    for (int i = 0; i < row.length; i++) {
      best = row[i] > row[best] ? i : best;
    }
    if (params.temperature() == 0) {
      return best;
    }
    long stream = Sampler.stream(params.seed(), state.position());
    int winner = -1;
    double top = Double.NEGATIVE_INFINITY;
    for (int i : kept(row, params).stream().sorted().toList()) {
      double x = (row[i] - (double) row[best]) / params.temperature();
      double score = x - StrictMath.log(-StrictMath.log(Sampler.uniform(stream, i)));
      if (score > top) {
        top = score;
        winner = i;
      }
    }
    return winner;
  }
}
