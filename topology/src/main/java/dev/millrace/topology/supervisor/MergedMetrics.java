package dev.millrace.topology.supervisor;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The metrics of several processes as one text in Prometheus' format 0.0.4, in which all samples of
 * a metric stand together: each sample gets a label that says which process it came from. For one
 * thread.
 */
final class MergedMetrics {
  private static final String HELP = "# HELP ";
  private static final String TYPE = "# TYPE ";

  private final Map<String, Family> families = new LinkedHashMap<>();

  private static final class Family {
    final List<String> comments = new ArrayList<>();
    final List<String> samples = new ArrayList<>();
  }

  /** Adds what one process shows. */
  void add(String worker, String text) {
    Family current = family("");
    boolean first = false;
    String name = "";
    for (String line : text.lines().toList()) {
      if (line.startsWith(HELP) || line.startsWith(TYPE)) {
        String of = line.substring(HELP.length()).split(" ", 2)[0];
        if (!of.equals(name)) {
          name = of;
          current = family(of);
          first = current.comments.isEmpty();
        }
        if (first) {
          current.comments.add(line);
        }
      } else if (!line.isBlank() && !line.startsWith("#")) {
        current.samples.add(labelled(line, worker));
      }
    }
  }

  /** Adds a metric of the caller's own. */
  void add(String name, String type, String help, Map<String, ? extends Number> byWorker) {
    Family family = family(name);
    family.comments.add(HELP + name + " " + help);
    family.comments.add(TYPE + name + " " + type);
    byWorker.forEach((worker, value) -> family.samples.add(labelled(name + " " + value, worker)));
  }

  private Family family(String name) {
    return families.computeIfAbsent(name, unused -> new Family());
  }

  private static String labelled(String sample, String worker) {
    String label = "worker=\"" + worker + "\"";
    int brace = sample.indexOf('{');
    int space = sample.indexOf(' ');
    if (brace < 0 || (space >= 0 && space < brace)) {
      return sample.substring(0, space) + "{" + label + "}" + sample.substring(space);
    }
    String rest = sample.substring(brace + 1);
    return sample.substring(0, brace + 1) + label + (rest.startsWith("}") ? "" : ",") + rest;
  }

  /** Everything that was added. */
  String text() {
    StringBuilder out = new StringBuilder();
    for (Family family : families.values()) {
      family.comments.forEach(line -> out.append(line).append('\n'));
      family.samples.forEach(line -> out.append(line).append('\n'));
    }
    return out.toString();
  }
}
