package dev.millrace.inference.model;

import dev.millrace.inference.backend.Rotary;
import dev.millrace.inference.checkpoint.RopeConfig;

/** Rotary position embeddings: from a configuration to angles, all in double. */
public final class Rope {
  private Rope() {}

  /** The angles of a head of {@code headDim} numbers. */
  public static Rotary of(RopeConfig config, int headDim) {
    return switch (config) {
      case RopeConfig.Plain plain -> new Rotary(plain(plain.theta(), headDim), 1);
      case RopeConfig.Llama3 llama3 -> new Rotary(llama3(llama3, headDim), 1);
      case RopeConfig.Yarn yarn -> new Rotary(yarn(yarn, headDim), yarn.attentionFactor());
    };
  }

  private static double[] plain(double theta, int headDim) {
    double[] inverse = new double[headDim / 2];
    for (int i = 0; i < inverse.length; i++) {
      inverse[i] = Math.pow(theta, -2.0 * i / headDim);
    }
    return inverse;
  }

  /** Waves longer than the original context turn slower, by the factor; short ones stay. */
  private static double[] llama3(RopeConfig.Llama3 config, int headDim) {
    double[] inverse = plain(config.theta(), headDim);
    double shortest = config.originalContext() / config.highFreqFactor();
    double longest = config.originalContext() / config.lowFreqFactor();
    for (int i = 0; i < inverse.length; i++) {
      double wavelength = 2 * Math.PI / inverse[i];
      if (wavelength > longest) {
        inverse[i] /= config.factor();
      } else if (wavelength >= shortest) {
        double keep =
            (config.originalContext() / wavelength - config.lowFreqFactor())
                / (config.highFreqFactor() - config.lowFreqFactor());
        inverse[i] *= (1 - keep) / config.factor() + keep;
      }
    }
    return inverse;
  }

  /** Pairs that turn often within the original context stay, those that hardly turn are slowed. */
  private static double[] yarn(RopeConfig.Yarn config, int headDim) {
    double[] inverse = plain(config.theta(), headDim);
    double low = pairThatTurns(config.betaFast(), config, headDim);
    double high = pairThatTurns(config.betaSlow(), config, headDim);
    if (config.truncate()) {
      low = Math.floor(low);
      high = Math.ceil(high);
    }
    low = Math.max(low, 0);
    high = Math.min(high, headDim - 1);
    if (low == high) {
      high += 0.001;
    }
    for (int i = 0; i < inverse.length; i++) {
      double slowed = Math.clamp((i - low) / (high - low), 0, 1);
      inverse[i] = inverse[i] / config.factor() * slowed + inverse[i] * (1 - slowed);
    }
    return inverse;
  }

  /** The pair, as a fraction, that makes so many turns within the original context. */
  private static double pairThatTurns(double turns, RopeConfig.Yarn config, int headDim) {
    return headDim
        * Math.log(config.originalContext() / (turns * 2 * Math.PI))
        / (2 * Math.log(config.theta()));
  }
}
