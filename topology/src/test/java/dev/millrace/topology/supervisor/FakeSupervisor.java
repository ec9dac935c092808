package dev.millrace.topology.supervisor;

import dev.millrace.topology.WorkerConfig;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

/** A process with a supervisor of fake workers, to be killed. */
public final class FakeSupervisor {
  private FakeSupervisor() {}

  /** Takes the folder of the workers' files; prints the processes' ids as soon as there are any. */
  public static void main(String[] args) throws Exception {
    try (WorkerSupervisor supervisor =
        new WorkerSupervisor(
            WorkerConfig.of(Map.of("kafka.bootstrap.servers", "nowhere:1", "status.port", "-1")),
            List.of(Map.of(), Map.of()),
            WorkerSupervisorTest.launch(Path.of(args[0]), System.err))) {
      supervisor.start();
      while (supervisor.pids().contains(-1L)) {
        Thread.sleep(10);
      }
      System.out.println("pids " + supervisor.pids());
      supervisor.awaitEnding();
    }
  }
}
