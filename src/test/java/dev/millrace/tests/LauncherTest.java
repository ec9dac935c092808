package dev.millrace.tests;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.topology.Environment;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * The launcher in a folder with spaces, with a Java and a Maven that only say how they were called.
 */
class LauncherTest {
  private static final String OLD_JAVA = "17.0.1";
  private static final String NEW_JAVA = "25.0.1";

  @TempDir Path folder;
  private Path project = Path.of("");
  private Path tools = Path.of("");

  private record Result(int exit, String output) {}

  @BeforeEach
  void copyTheLauncher() throws IOException {
    folder = folder.toRealPath();
    project = Files.createDirectories(folder.resolve("a project's folder"));
    tools = Files.createDirectories(folder.resolve("tools"));
    Files.copy(Environment.home().resolve("millrace"), project.resolve("millrace"));
    assertThat(project.resolve("millrace").toFile().setExecutable(true)).isTrue();
    Files.writeString(
        project.resolve("pom.xml"), "<p>\n  <millrace.jvm>--one --two=2</millrace.jvm>\n</p>\n");
    for (String module : List.of("schemas", "kernels", "inference", "topology")) {
      Files.createDirectories(project.resolve(module).resolve("src"));
      Files.writeString(project.resolve(module).resolve("pom.xml"), "<p/>");
    }
    script(
        tools.resolve("mvn"),
        "echo \"mvn with $JAVA_HOME: $*\"\nmkdir -p topology/target\n"
            + "printf lib.jar > topology/target/classpath\n");
  }

  private Path java(String version) throws IOException {
    Path home = folder.resolve("java " + version);
    script(home.resolve("bin/java"), "for a in \"$@\"; do echo \"[$a]\"; done\n");
    script(home.resolve("bin/javac"), "");
    Files.writeString(home.resolve("release"), "JAVA_VERSION=\"" + version + "\"\n");
    return home;
  }

  private static void script(Path file, String text) throws IOException {
    Files.createDirectories(file.toAbsolutePath().getParent());
    Files.writeString(file, "#!/usr/bin/env bash\n" + text);
    assertThat(file.toFile().setExecutable(true)).isTrue();
  }

  private Result run(Path launcher, Map<String, String> environment, String... args)
      throws Exception {
    ProcessBuilder builder = new ProcessBuilder("bash", launcher.toString());
    builder.command().addAll(List.of(args));
    builder.environment().clear();
    builder.environment().put("PATH", tools + ":/usr/bin:/bin");
    builder.environment().put("HOME", folder.toString());
    builder.environment().putAll(environment);
    Process process = builder.directory(folder.toFile()).redirectErrorStream(true).start();
    String output = new String(process.getInputStream().readAllBytes(), UTF_8);
    assertThat(process.waitFor(60, TimeUnit.SECONDS)).isTrue();
    return new Result(process.exitValue(), output);
  }

  private Result run(String... args) throws Exception {
    return run(project.resolve("millrace"), Map.of("JAVA_HOME", java(NEW_JAVA).toString()), args);
  }

  private void age(Path file, int seconds) throws IOException {
    Files.setLastModifiedTime(file, FileTime.from(Instant.now().minusSeconds(seconds)));
  }

  @Test
  void shouldBuildOnceAndStartTheProgram() throws Exception {
    Result first = run("send", "two words");
    assertThat(first.output())
        .contains("building for the first time")
        .contains("mvn with " + folder.resolve("java 25.0.1"))
        .contains("[--one]\n[--two=2]\n")
        .contains("[-Dmillrace.home=" + project + "]")
        .contains(
            "/topology/target/classes:lib.jar]\n"
                + "[dev.millrace.topology.Main]\n"
                + "[send]\n"
                + "[two words]\n");
    assertThat(first.exit()).isZero();
    assertThat(run("send").output()).doesNotContain("mvn").contains("[send]");
  }

  @Test
  void shouldBuildAgainWhenASourceIsNewer() throws Exception {
    assertThat(run().exit()).isZero();
    Path source = project.resolve("inference/src/A.java");
    Files.writeString(source, "class A {}");
    age(source, 60);
    assertThat(run().output()).doesNotContain("mvn with");
    age(project.resolve("topology/target/classpath"), 120);
    for (Path file : List.of(project.resolve("pom.xml"), project.resolve("topology/pom.xml"))) {
      age(file, 300);
    }
    assertThat(run().output()).contains("sources have changed").contains("mvn with");
  }

  @Test
  void shouldWorkThroughLinks() throws Exception {
    Path first = Files.createDirectory(folder.resolve("some bin")).resolve("one");
    Files.createSymbolicLink(first, Path.of("../a project's folder/millrace"));
    Path second = folder.resolve("two");
    Files.createSymbolicLink(second, first);
    Result result = run(second, Map.of("JAVA_HOME", java(NEW_JAVA).toString()), "version");
    assertThat(result.output()).contains("[-Dmillrace.home=" + project + "]").contains("[version]");
    assertThat(result.exit()).isZero();
  }

  @Test
  void shouldStartABundleWithItsOwnJavaAndBuildNothing() throws Exception {
    script(project.resolve("runtime/bin/java"), "for a in \"$@\"; do echo \"[$a]\"; done\n");
    Path libraries = Files.createDirectories(project.resolve("lib"));
    Files.writeString(libraries.resolve("jvm.flags"), "--one --two=2\n");
    Files.writeString(libraries.resolve("classpath"), "a.jar\nb.jar\n");
    Files.delete(project.resolve("pom.xml"));
    // No JAVA_HOME, no HOME, nothing but what every machine has.
    Result result = run(project.resolve("millrace"), Map.of("PATH", "/usr/bin:/bin"), "version");
    assertThat(result.output())
        .contains("[--one]\n[--two=2]\n")
        .contains("[" + libraries.resolve("a.jar") + ":" + libraries.resolve("b.jar") + "]\n")
        .contains("[version]")
        .doesNotContain("mvn");
    assertThat(result.exit()).isZero();
  }

  @Test
  void shouldPassTheUsersOptionsAfterItsOwn() throws Exception {
    assertThat(withOptions("-Xmx1g -XX:-UseTLAB"))
        .containsSubsequence("[-XX:+ExitOnOutOfMemoryError]", "[-Xmx1g]\n[-XX:-UseTLAB]\n");
  }

  @Test
  void shouldTakeTheCollectorThatTheCoresAllow() throws Exception {
    script(tools.resolve("nproc"), "echo 7\n");
    assertThat(run().output()).contains("[-XX:+UseG1GC]").doesNotContain("UseZGC");
    script(tools.resolve("nproc"), "echo 8\n");
    assertThat(run().output()).contains("[-XX:+UseZGC]").doesNotContain("UseG1GC");
  }

  @Test
  void shouldLeaveTheCollectorToTheUser() throws Exception {
    script(tools.resolve("nproc"), "echo 16\n");
    // The virtual machine refuses two.
    assertThat(withOptions("-XX:+UseSerialGC -Xmx1g"))
        .contains("[-XX:+UseSerialGC]\n[-Xmx1g]\n")
        .doesNotContain("UseZGC", "UseG1GC");
  }

  private String withOptions(String options) throws Exception {
    Map<String, String> environment =
        Map.of("JAVA_HOME", java(NEW_JAVA).toString(), "MILLRACE_JAVA_OPTS", options);
    return run(project.resolve("millrace"), environment).output();
  }

  @Test
  void shouldPassOverAnOldJavaHome() throws Exception {
    Path sdk = folder.resolve(".sdkman/candidates/java/25");
    Files.createDirectories(sdk.getParent());
    Files.createSymbolicLink(sdk, java(NEW_JAVA));
    Result result =
        run(project.resolve("millrace"), Map.of("JAVA_HOME", java(OLD_JAVA).toString()));
    // A machine that has a new Java in a usual folder uses that one.
    assertThat(result.output()).doesNotContain("mvn with " + folder.resolve("java 17"));
    assertThat(result.output()).contains("mvn with ");
  }

  @Test
  void shouldSayHowToGetMaven() throws Exception {
    Files.delete(tools.resolve("mvn"));
    Path bash = Files.createDirectory(folder.resolve("few tools"));
    for (String tool : List.of("bash", "env", "dirname", "sed", "find", "head", "mkdir", "cat")) {
      for (String bin : List.of("/bin/", "/usr/bin/")) {
        if (Files.exists(Path.of(bin + tool)) && !Files.exists(bash.resolve(tool))) {
          Files.createSymbolicLink(bash.resolve(tool), Path.of(bin + tool));
        }
      }
    }
    Result result =
        run(
            project.resolve("millrace"),
            Map.of("JAVA_HOME", java(NEW_JAVA).toString(), "PATH", bash.toString()));
    assertThat(result.output()).contains("Maven (mvn) is needed").contains("apt install maven");
    assertThat(result.exit()).isEqualTo(1);
  }

  @Test
  void shouldSayThatTheBuildFailed() throws Exception {
    script(tools.resolve("mvn"), "echo compiler says no\nexit 1\n");
    Result result = run("demo");
    assertThat(result.output()).contains("compiler says no").contains("the build failed");
    assertThat(result.output()).doesNotContain("[demo]");
    assertThat(result.exit()).isEqualTo(1);
  }

  @Test
  void shouldSayHowToGetJava() throws Exception {
    // Every folder it looks into by itself is replaced by one that does not exist.
    Path launcher = project.resolve("millrace");
    Files.writeString(
        launcher,
        Files.readString(launcher)
            .replaceAll(
                "/usr/lib/jvm|/usr/java|/opt/|/Library|/usr/local|/usr/libexec", "/nothing/"));
    Result result =
        run(launcher, Map.of("JAVA_HOME", java(OLD_JAVA).toString(), "PATH", tools + ":/bin"));
    assertThat(result.output())
        .contains("JDK) of version 25 or newer is needed")
        .contains("Java 17 in " + folder.resolve("java 17.0.1"))
        .contains("set JAVA_HOME");
    assertThat(result.exit()).isEqualTo(1);
  }
}
