package dev.millrace.tests;

import dev.millrace.inference.api.Generator;
import dev.millrace.topology.Environment;
import dev.millrace.topology.Main;
import dev.millrace.topology.Worker;
import dev.millrace.topology.local.ForkedJvm;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.stream.Stream;

/** Workers for tests, in this process and in others. */
final class Workers {
  private static final Duration START = Duration.ofSeconds(60);
  private static final String HEAP = "-Xmx256m";
  private static final List<String> JVM =
      List.of(
          "-XX:+UseSerialGC",
          "--add-modules=jdk.incubator.vector",
          "--enable-native-access=ALL-UNNAMED",
          "--sun-misc-unsafe-memory-access=allow");

  private Workers() {}

  /** Starts a worker and returns when it reads prompts. The caller closes it. */
  static Worker start(Scene scene, Generator generator) throws InterruptedException {
    Worker worker = new Worker(scene.config(), generator);
    worker.start();
    if (!worker.awaitRunning(START)) {
      worker.close();
      throw new AssertionError("the worker is " + worker.state() + ": " + worker.failure());
    }
    return worker;
  }

  /** A process with a synthetic generator; the caller closes it. */
  static ForkedJvm forkSynthetic(Scene scene, double tokensPerSecond) {
    return forkSynthetic(scene, tokensPerSecond, HEAP);
  }

  /** With a heap of another size than tests need otherwise. */
  static ForkedJvm forkSynthetic(Scene scene, double tokensPerSecond, String heap) {
    return fork(
        scene.folder(),
        // Nothing here computes: the quick compiler starts sooner.
        Stream.concat(Stream.of(heap, "-XX:TieredStopAtLevel=1"), JVM.stream()).toList(),
        SyntheticWorker.class.getName(),
        List.of(scene.settingsFile().toString(), Double.toString(tokensPerSecond)));
  }

  /** {@code millrace worker} as users start it; the caller closes it. */
  static ForkedJvm forkMain(Scene scene) {
    return fork(
        scene.folder(),
        withHeap(),
        Main.class.getName(),
        List.of("worker", "--config", scene.settingsFile().toString()));
  }

  private static List<String> withHeap() {
    return Stream.concat(Stream.of(HEAP), JVM.stream()).toList();
  }

  /** A process with a main class of the project and a folder for its log. */
  static ForkedJvm fork(Path folder, String main, List<String> args) {
    return fork(folder, withHeap(), main, args);
  }

  private static ForkedJvm fork(Path folder, List<String> jvm, String main, List<String> args) {
    List<String> flags =
        Stream.concat(jvm.stream(), Stream.of("-Dmillrace.home=" + Environment.home())).toList();
    return ForkedJvm.start(
        new ForkedJvm.Spec(
            "the process", flags, null, main, args, folder.resolve("process.log"), folder));
  }
}
