package dev.millrace.topology;

import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * The one place where the project reads environment variables and system properties. Everything
 * else gets its settings handed in.
 */
public final class Environment {
  /** The system property that says which of several workers this process is. */
  public static final String WORKER = "millrace.worker";

  private Environment() {}

  /** Which of several workers this process is; null if it is no supervisor's. */
  public static @Nullable String worker() {
    return System.getProperty(WORKER);
  }

  /** The flags of this virtual machine, for processes that run the same code as this one. */
  public static List<String> jvmFlags() {
    return ManagementFactory.getRuntimeMXBean().getInputArguments().stream()
        // Two processes cannot listen for debuggers on one port.
        .filter(flag -> !flag.startsWith("-agentlib:jdwp"))
        .toList();
  }

  /**
   * The project's folder: what {@code ./millrace} passes as {@code -Dmillrace.home}, else {@code
   * MILLRACE_HOME}, else the nearest folder upwards from the working directory that holds the
   * launcher.
   *
   * @throws IllegalStateException if none of them leads to a folder
   */
  public static Path home() {
    String given = System.getProperty("millrace.home", System.getenv("MILLRACE_HOME"));
    if (given != null && !given.isBlank()) {
      Path home = Path.of(given).toAbsolutePath().normalize();
      if (!Files.isDirectory(home)) {
        throw new IllegalStateException("millrace.home is " + home + ", which is no folder");
      }
      return home;
    }
    Path start = Path.of("").toAbsolutePath();
    for (Path at = start; at != null; at = at.getParent()) {
      if (Files.isRegularFile(at.resolve("millrace"))) {
        return at;
      }
    }
    throw new IllegalStateException(
        "the project's folder was not found upwards of "
            + start
            + ": start through ./millrace, or set MILLRACE_HOME");
  }

  /** Whether this runs from an archive that {@code millrace bundle} made: it has its own Java. */
  public static boolean bundled() {
    return Files.isRegularFile(home().resolve("lib/jvm.flags"));
  }

  /** The environment variables that override settings: those that begin with {@code MILLRACE_}. */
  static Map<String, String> overrides() {
    Map<String, String> found = new HashMap<>(System.getenv());
    found.keySet().removeIf(name -> !name.startsWith("MILLRACE_") || name.equals("MILLRACE_HOME"));
    return found;
  }

  /** Where Kafka Streams keeps its state unless told otherwise: in a folder in this one. */
  static Path temporaryFolder() {
    return Path.of(System.getProperty("java.io.tmpdir", "/tmp"));
  }

  /** The class path of this process, for processes that run the same code. */
  public static String classPath() {
    return System.getProperty("java.class.path", "");
  }

  /** The folder of the Java that runs this process. */
  public static Path javaHome() {
    return Path.of(System.getProperty("java.home", ""));
  }

  /** The {@code java} command that runs this process. */
  public static Path java() {
    return javaHome().resolve("bin/java");
  }
}
