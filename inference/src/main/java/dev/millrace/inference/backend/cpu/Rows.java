package dev.millrace.inference.backend.cpu;

import static dev.millrace.inference.backend.cpu.VectorLanes.FLOATS;
import static dev.millrace.inference.backend.cpu.VectorLanes.LANES;
import static dev.millrace.inference.backend.cpu.VectorLanes.WIDTH;
import static dev.millrace.inference.backend.cpu.VectorLanes.load;

import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.VectorMask;
import jdk.incubator.vector.VectorOperators;

/** Operations on one row of activations. */
final class Rows {
  private static final float LOG2_E = 1.442695040888963f;
  // ln 2 in two parts, the first with so few bits that its product with a whole number is exact.
  private static final float LN2_HIGH = 0.693359375f;
  private static final float LN2_LOW = -2.12194440e-4f;
  // Below, the result would be subnormal; above, infinite.
  private static final float EXP_MIN = -87.33f;
  private static final float EXP_MAX = 88.37f;
  // Adding it to a float rounds to a whole number.
  private static final float ROUND = 0x1.8p23f;

  private Rows() {}

  /** out = x / sqrt(mean(x²) + epsilon) · weight. */
  static void rmsNorm(
      float[] x, int at, int n, float[] weight, float epsilon, float[] sums, float[] out) {
    double squares = sumOfSquares(x, at, n, sums);
    float scale = (float) (1 / Math.sqrt(squares / n + epsilon));
    int i = 0;
    for (; i + WIDTH <= n; i += WIDTH) {
      load(x, at + i).mul(scale).mul(load(weight, i)).intoArray(out, at + i);
    }
    for (; i < n; i++) {
      out[at + i] = x[at + i] * scale * weight[i];
    }
  }

  private static float sumOfSquares(float[] x, int at, int n, float[] sums) {
    int whole = n / LANES * LANES;
    for (int lane = 0; lane < 8; lane += WIDTH) {
      FloatVector a = FloatVector.zero(FLOATS);
      FloatVector b = a;
      for (int i = lane; i < whole + lane; i += LANES) {
        FloatVector u = load(x, at + i);
        FloatVector v = load(x, at + i + 8);
        a = u.fma(u, a);
        b = v.fma(v, b);
      }
      a.intoArray(sums, lane);
      b.intoArray(sums, lane + 8);
    }
    float rest = 0;
    for (int i = whole; i < n; i++) {
      rest = Math.fma(x[at + i], x[at + i], rest);
    }
    return VectorLanes.reduce(sums, 0) + rest;
  }

  /** out = silu(gate) · up, over [at, at + n). */
  static void siluMul(float[] gate, float[] up, int at, int n, float[] out) {
    int i = at;
    for (; i + WIDTH <= at + n; i += WIDTH) {
      FloatVector g = load(gate, i);
      g.div(exp(g.neg()).add(1f)).mul(load(up, i)).intoArray(out, i);
    }
    if (i < at + n) {
      VectorMask<Float> rest = FLOATS.indexInRange(i, at + n);
      FloatVector g = FloatVector.fromArray(FLOATS, gate, i, rest);
      g.div(exp(g.neg()).add(1f))
          .mul(FloatVector.fromArray(FLOATS, up, i, rest))
          .intoArray(out, i, rest);
    }
  }

  /** x += y, over [at, at + n). */
  static void add(float[] x, float[] y, int at, int n) {
    for (int i = at; i < at + n; i++) {
      x[i] += y[i];
    }
  }

  /** x = exp(x - shift), over [at, at + n), n a multiple of 8; 0 for -infinity. */
  static void exp(float[] x, int at, int n, float shift) {
    for (int i = at; i < at + n; i += WIDTH) {
      exp(load(x, i).sub(shift)).intoArray(x, i);
    }
  }

  /**
   * e^x to about one unit in the last place, by e^x = 2^n · e^r with |r| ≤ ln 2 / 2 and a
   * polynomial in r. The library's own is another one for each width of vectors, so it cannot be
   * used where all machines shall agree.
   */
  private static FloatVector exp(FloatVector x) {
    FloatVector c = x.max(EXP_MIN).min(EXP_MAX);
    FloatVector n =
        c.fma(FloatVector.broadcast(FLOATS, LOG2_E), FloatVector.broadcast(FLOATS, ROUND))
            .sub(ROUND);
    FloatVector r = n.fma(FloatVector.broadcast(FLOATS, -LN2_HIGH), c);
    r = n.fma(FloatVector.broadcast(FLOATS, -LN2_LOW), r);
    // Taylor's coefficients 1/k!, the last ones adjusted to spread the error over the interval.
    FloatVector p = FloatVector.broadcast(FLOATS, 1.9875691500e-4f);
    p = p.fma(r, FloatVector.broadcast(FLOATS, 1.3981999507e-3f));
    p = p.fma(r, FloatVector.broadcast(FLOATS, 8.3334519073e-3f));
    p = p.fma(r, FloatVector.broadcast(FLOATS, 4.1665795894e-2f));
    p = p.fma(r, FloatVector.broadcast(FLOATS, 1.6666665459e-1f));
    p = p.fma(r, FloatVector.broadcast(FLOATS, 5.0000001201e-1f));
    p = p.fma(r.mul(r), r).add(1f);
    IntVector exponent =
        ((IntVector) n.convert(VectorOperators.F2I, 0)).add(127).lanewise(VectorOperators.LSHL, 23);
    FloatVector result = p.mul(exponent.reinterpretAsFloats());
    return result.blend(0f, x.compare(VectorOperators.LT, EXP_MIN));
  }

  /**
   * Turns a head: pair i is (i, i + pairs).
   *
   * @param angles where the token's cosines and sines begin
   */
  static void rotate(float[] x, int at, int pairs, float[] cos, float[] sin, int angles) {
    for (int i = 0; i < pairs; i++) {
      float a = x[at + i];
      float b = x[at + pairs + i];
      float c = cos[angles + i];
      float s = sin[angles + i];
      x[at + i] = a * c - b * s;
      x[at + pairs + i] = b * c + a * s;
    }
  }
}
