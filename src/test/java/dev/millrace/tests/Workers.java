package dev.millrace.tests;

import dev.millrace.inference.api.Generator;
import dev.millrace.topology.Main;
import dev.millrace.topology.Worker;
import dev.millrace.topology.local.ForkedJvm;
import java.time.Duration;
import java.util.List;

/** Workers for tests, in this process and in others. */
final class Workers {
  private static final Duration START = Duration.ofSeconds(60);
  private static final List<String> JVM =
      List.of(
          "-Xmx192m",
          "-XX:+UseSerialGC",
          "-XX:TieredStopAtLevel=1",
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
    return fork(
        scene,
        SyntheticWorker.class.getName(),
        List.of(scene.settingsFile().toString(), Double.toString(tokensPerSecond)));
  }

  /** {@code millrace worker} as users start it; the caller closes it. */
  static ForkedJvm forkMain(Scene scene) {
    return fork(
        scene,
        Main.class.getName(),
        List.of("worker", "--config", scene.settingsFile().toString()));
  }

  private static ForkedJvm fork(Scene scene, String main, List<String> args) {
    return ForkedJvm.start(
        new ForkedJvm.Spec(
            "the worker",
            JVM,
            null,
            main,
            args,
            scene.folder().resolve("worker.log"),
            scene.folder()));
  }
}
