package dev.millrace.tests;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import com.google.googlejavaformat.java.Formatter;
import com.google.googlejavaformat.java.FormatterException;
import dev.millrace.topology.Environment;
import java.io.IOException;
import java.nio.file.FileVisitResult;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.SimpleFileVisitor;
import java.nio.file.attribute.BasicFileAttributes;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Test;

/** Every Java file of the project is as google-java-format writes it. */
class FormatTest {
  private static final Set<String> NOT_SOURCES = Set.of("target", "node_modules");

  private final Formatter formatter = new Formatter();

  @Test
  void shouldBeFormatted() throws Exception {
    boolean write = Boolean.getBoolean("format.write");
    List<String> wrong = new ArrayList<>();
    List<Path> sources = sources(Environment.home());
    assertThat(sources).as("Java files under %s", Environment.home()).hasSizeGreaterThan(50);
    for (Path source : sources) {
      String text = Files.readString(source);
      String formatted = format(text, source);
      if (!formatted.equals(text)) {
        if (write) {
          Files.writeString(source, formatted, UTF_8);
        } else {
          wrong.add(Environment.home().relativize(source) + ", from line " + line(text, formatted));
        }
      }
    }
    assertThat(wrong)
        .as(
            "files that are not formatted; this formats them: mvn -B -pl src/test -am test"
                + " -Dtest=FormatTest -Dsurefire.failIfNoSpecifiedTests=false -Dformat.write=true")
        .isEmpty();
  }

  @Test
  void shouldSeeAWrongIndent() throws Exception {
    String text = "class A {\n   int a;\n}\n";
    assertThat(format(text, Path.of("A.java"))).isEqualTo("class A {\n  int a;\n}\n");
  }

  private String format(String text, Path source) {
    try {
      return formatter.formatSourceAndFixImports(text);
    } catch (FormatterException e) {
      throw new AssertionError(source + " is no Java: " + e.getMessage(), e);
    }
  }

  private static int line(String text, String formatted) {
    String[] a = text.split("\n", -1);
    String[] b = formatted.split("\n", -1);
    for (int i = 0; i < Math.min(a.length, b.length); i++) {
      if (!a[i].equals(b[i])) {
        return i + 1;
      }
    }
    return Math.min(a.length, b.length);
  }

  private static List<Path> sources(Path home) throws IOException {
    List<Path> sources = new ArrayList<>();
    Files.walkFileTree(
        home,
        new SimpleFileVisitor<>() {
          @Override
          public FileVisitResult preVisitDirectory(Path dir, BasicFileAttributes attributes) {
            String name = dir.getFileName() == null ? "" : dir.getFileName().toString();
            boolean skip =
                NOT_SOURCES.contains(name) || (name.startsWith(".") && !dir.equals(home));
            return skip ? FileVisitResult.SKIP_SUBTREE : FileVisitResult.CONTINUE;
          }

          @Override
          public FileVisitResult visitFile(Path file, BasicFileAttributes attributes) {
            if (file.toString().endsWith(".java")) {
              sources.add(file);
            }
            return FileVisitResult.CONTINUE;
          }
        });
    return sources;
  }
}
