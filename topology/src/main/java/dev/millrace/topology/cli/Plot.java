package dev.millrace.topology.cli;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;

/** Lines over one axis, drawn one below the other, each from zero up. For one thread. */
final class Plot {
  private static final int WIDTH = 720;
  private static final int HEIGHT = 130;
  private static final int LEFT = 80;
  private static final int GAP = 34;

  private final String axis;
  private final double[] x;
  private final List<Line> lines = new ArrayList<>();

  private record Line(String name, double[] values) {}

  /**
   * @param axis what x is
   * @param x rising, at least one
   */
  Plot(String axis, double[] x) {
    this.axis = axis;
    this.x = x.clone();
  }

  /** Adds a line with a value for each x; what is not finite is left out. */
  Plot line(String name, double[] values) {
    lines.add(new Line(name, values.clone()));
    return this;
  }

  /** The drawing as SVG. */
  String svg() {
    int height = lines.size() * (HEIGHT + GAP) + GAP;
    StringBuilder out = new StringBuilder();
    out.append(
        format(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\""
                + " font-family=\"sans-serif\" font-size=\"12\">%n"
                + "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>%n",
            WIDTH + LEFT + 20, height));
    for (int i = 0; i < lines.size(); i++) {
      draw(out, lines.get(i), GAP + i * (HEIGHT + GAP));
    }
    out.append(
        format(
            "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s, 0 to %.0f</text>%n</svg>%n",
            LEFT + WIDTH, height - 10, axis, x[x.length - 1]));
    return out.toString();
  }

  private void draw(StringBuilder out, Line line, int top) {
    double most =
        Math.max(1e-9, Arrays.stream(line.values).filter(Double::isFinite).max().orElse(1)) * 1.1;
    int bottom = top + HEIGHT;
    out.append(
        format(
            "<text x=\"%d\" y=\"%d\">%s</text>%n"
                + "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%,.0f</text>%n"
                + "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">0</text>%n"
                + "<path d=\"M%d %dV%dH%d\" fill=\"none\" stroke=\"#888\"/>%n"
                + "<polyline fill=\"none\" stroke=\"#1f5fa8\" stroke-width=\"1.5\" points=\"",
            LEFT,
            top - 6,
            line.name,
            LEFT - 6,
            top + 10,
            most,
            LEFT - 6,
            bottom,
            LEFT,
            top,
            bottom,
            LEFT + WIDTH));
    for (int i = 0; i < x.length; i++) {
      if (Double.isFinite(line.values[i])) {
        out.append(
            format(
                "%.1f,%.1f ",
                LEFT + WIDTH * x[i] / x[x.length - 1], bottom - HEIGHT * line.values[i] / most));
      }
    }
    out.append("\"/>\n");
  }

  private static String format(String text, Object... values) {
    return String.format(Locale.ROOT, text, values);
  }
}
