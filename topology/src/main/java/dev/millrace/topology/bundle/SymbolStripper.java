package dev.millrace.topology.bundle;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;

/**
 * Takes symbols that only debuggers read out of native libraries, with the system's {@code strip};
 * where there is none they stay as they are, and the bundle is some megabytes larger.
 */
final class SymbolStripper {
  private final Path work;
  private final boolean found;

  /**
   * @param work a folder for files on the way
   */
  SymbolStripper(Path work) {
    this.work = work;
    this.found = run(List.of("strip", "--version"));
  }

  /** Every library in a folder. */
  void folder(Path folder) throws IOException {
    try (Stream<Path> walk = Files.walk(folder)) {
      for (Path file : walk.filter(f -> f.toString().endsWith(".so")).toList()) {
        Files.write(file, library(Files.readAllBytes(file)));
      }
    }
  }

  /** A library's content without them. */
  byte[] library(byte[] content) throws IOException {
    if (!found) {
      return content;
    }
    Path file = work.resolve("library.so");
    Files.write(file, content);
    // What it does not understand stays as it is.
    return run(List.of("strip", "--strip-unneeded", file.toString()))
        ? Files.readAllBytes(file)
        : content;
  }

  private static boolean run(List<String> command) {
    try {
      Process process =
          new ProcessBuilder(command)
              .redirectErrorStream(true)
              .redirectOutput(ProcessBuilder.Redirect.DISCARD)
              .start();
      return process.waitFor() == 0;
    } catch (IOException e) {
      return false;
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      return false;
    }
  }
}
