package dev.millrace.topology.bundle;

import dev.millrace.topology.local.TemporaryFolder;
import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/**
 * One archive with all that a machine needs to run Millrace without Java and without a network: a
 * runtime, the project's classes with the kernels, the libraries with the natives of one platform,
 * the launcher and the demo's prompts. It holds no schema registry, and a model only where one is
 * given. What lies where is as in the project, so that the same launcher and the same defaults
 * serve both.
 */
public final class Bundle {
  /** Beside the launcher, where it looks for it. */
  static final String RUNTIME = "runtime";

  static final String LIBRARIES = "lib";

  /** Files of the project that are taken as they are. */
  private static final List<String> FILES =
      List.of(
          "millrace",
          "LICENSE",
          "NOTICE",
          "README.md",
          "docs/operations.md",
          "deploy/demo-prompts.jsonl",
          "deploy/worker.properties");

  private static final Pattern JVM_FLAGS = Pattern.compile("<millrace\\.jvm>(.*)</millrace\\.jvm>");

  /** How an archive is packed, by the end of its name. */
  private static final Map<String, List<String>> PACKERS =
      Map.of(
          ".tar.xz", List.of("xz", "-9", "-c"),
          ".tar.zst", List.of("zstd", "-19", "--long=27", "-q", "-c"),
          ".tar.gz", List.of("gzip", "-9", "-c"));

  /** Without Log4j's own logging its interface would complain on standard error. */
  private static final String QUIET = "-Dlog4j2.statusLoggerLevel=OFF";

  /** With which the folder's name in the archive is a fixed one, whatever the file is called. */
  private static final String FOLDER = "millrace";

  private final Path home;
  private final List<Path> classPath;
  private final Path javaHome;
  private final String model;

  /**
   * @param home the project's folder, built
   * @param classPath of a process that runs from it: folders of classes, then libraries
   * @param javaHome the JDK whose runtime goes in
   * @param model where in the project, and so in the bundle, the commands look for a model
   */
  public Bundle(Path home, String classPath, Path javaHome, String model) {
    this.home = home;
    this.classPath = Stream.of(classPath.split(File.pathSeparator)).map(Path::of).toList();
    this.javaHome = javaHome;
    this.model = model;
  }

  /** What went into an archive. */
  public record Result(Path archive, long bytes, List<String> libraries) {}

  /**
   * Makes the archive. Takes a minute or two.
   *
   * @param out its end says how it is packed: {@code .tar.xz}, {@code .tar.zst} or {@code .tar.gz}
   * @param checkpoint a model to put in, or null
   * @throws IllegalStateException if a tool is missing or fails; the message says which
   */
  public Result write(Path out, @Nullable Path checkpoint) {
    List<String> packer = packer(out);
    try (TemporaryFolder work = TemporaryFolder.create("millrace-bundle-")) {
      Path root = Files.createDirectory(work.path().resolve(FOLDER));
      link(root.resolve(RUNTIME), work.path().resolve("jlink.log"));
      SymbolStripper stripper = new SymbolStripper(work.path());
      stripper.folder(root.resolve(RUNTIME));
      List<String> libraries = libraries(root.resolve(LIBRARIES), stripper);
      for (String file : FILES) {
        copy(home.resolve(file), root.resolve(file));
      }
      Files.writeString(
          root.resolve(LIBRARIES).resolve("jvm.flags"), jvmFlags() + " " + QUIET + "\n");
      if (checkpoint != null) {
        copyFolder(checkpoint, root.resolve(model));
      }
      pack(work.path(), packer, out.toAbsolutePath());
      return new Result(out.toAbsolutePath(), Files.size(out), libraries);
    } catch (IOException e) {
      throw new UncheckedIOException("cannot make " + out, e);
    }
  }

  private static List<String> packer(Path out) {
    String name = out.getFileName().toString();
    for (Map.Entry<String, List<String>> packer : PACKERS.entrySet()) {
      if (name.endsWith(packer.getKey())) {
        return packer.getValue();
      }
    }
    throw new IllegalStateException(
        out + " must end in .tar.xz, .tar.zst or .tar.gz, which says how it is packed");
  }

  private void link(Path runtime, Path log) throws IOException {
    Path jlink = javaHome.resolve("bin/jlink");
    if (!Files.isExecutable(jlink)) {
      throw new IllegalStateException(
          "there is no " + jlink + ": a bundle's runtime is made by the JDK's jlink");
    }
    run(
        List.of(
            jlink.toString(),
            "--add-modules",
            String.join(",", BundleParts.RUNTIME_MODULES),
            "--strip-debug",
            "--no-man-pages",
            "--no-header-files",
            // The archive compresses better what is not compressed yet.
            "--compress",
            "zip-0",
            "--vm",
            "server",
            "--output",
            runtime.toString()),
        log);
  }

  /** Writes the class path's jars, and their names in its order. */
  private List<String> libraries(Path folder, SymbolStripper stripper) throws IOException {
    Files.createDirectories(folder);
    List<String> names = new ArrayList<>();
    for (Path part : classPath) {
      if (Files.isDirectory(part)) {
        // MODULE/target/classes
        String name = "millrace-" + part.getName(part.getNameCount() - 3) + ".jar";
        BundleJar.pack(part, folder.resolve(name));
        names.add(name);
      } else if (BundleParts.keepsJar(part.getFileName().toString())) {
        BundleJar.copy(part, folder.resolve(part.getFileName().toString()), stripper);
        names.add(part.getFileName().toString());
      }
    }
    Files.write(folder.resolve("classpath"), names);
    return names;
  }

  /** Flags that every JVM of the project needs: they stand in its pom.xml. */
  private String jvmFlags() throws IOException {
    Matcher flags = JVM_FLAGS.matcher(Files.readString(home.resolve("pom.xml")));
    if (!flags.find()) {
      throw new IllegalStateException(home.resolve("pom.xml") + " has no millrace.jvm");
    }
    return flags.group(1);
  }

  private static void pack(Path folder, List<String> packer, Path out) throws IOException {
    Path tar = folder.resolve("bundle.tar");
    Path log = folder.resolve("pack.log");
    run(
        List.of(
            "tar",
            "--create",
            "--sort=name",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "--file=" + tar,
            "--directory=" + folder,
            FOLDER),
        log);
    Path part = out.resolveSibling(out.getFileName() + ".part");
    List<String> command = new ArrayList<>(packer);
    command.add(tar.toString());
    start(
        new ProcessBuilder(command).redirectOutput(part.toFile()).redirectError(log.toFile()), log);
    // Only a whole archive gets its name.
    Files.move(part, out, StandardCopyOption.REPLACE_EXISTING);
  }

  private static void run(List<String> command, Path log) throws IOException {
    start(new ProcessBuilder(command).redirectErrorStream(true).redirectOutput(log.toFile()), log);
  }

  private static void start(ProcessBuilder builder, Path log) throws IOException {
    String tool = builder.command().getFirst();
    builder.environment().remove("JAVA_TOOL_OPTIONS");
    builder.environment().remove("JDK_JAVA_OPTIONS");
    Process process;
    try {
      process = builder.start();
    } catch (IOException e) {
      throw new IllegalStateException(
          tool
              + " was not found: install it (Debian, Ubuntu: apt install tar xz-utils zstd gzip),"
              + " or name the archive for another tool: .tar.xz, .tar.zst, .tar.gz",
          e);
    }
    try {
      if (process.waitFor() != 0) {
        throw new IllegalStateException(
            "%s ended with %d: %s"
                .formatted(tool, process.exitValue(), Files.readString(log).strip()));
      }
    } catch (InterruptedException e) {
      process.destroyForcibly();
      Thread.currentThread().interrupt();
      throw new IllegalStateException("interrupted while " + tool + " was running", e);
    }
  }

  private static void copyFolder(Path from, Path to) throws IOException {
    try (Stream<Path> files = Files.list(from)) {
      for (Path file : files.filter(Files::isRegularFile).toList()) {
        copy(file, to.resolve(file.getFileName()));
      }
    }
  }

  private static void copy(Path from, Path to) throws IOException {
    Files.createDirectories(to.getParent());
    Files.copy(from, to, StandardCopyOption.COPY_ATTRIBUTES);
  }
}
