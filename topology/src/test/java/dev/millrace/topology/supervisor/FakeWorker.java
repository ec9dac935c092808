package dev.millrace.topology.supervisor;

import dev.millrace.topology.Environment;
import dev.millrace.topology.StatusServer;
import dev.millrace.topology.StatusServer.Health;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;

/** A process that does what a file says, for the supervisor's tests. */
public final class FakeWorker {
  private FakeWorker() {}

  /** The first argument is a folder; the file in it that has this worker's name says what to do. */
  public static void main(String[] args) throws Exception {
    Path folder = Path.of(args[0]);
    String me = Environment.worker();
    Path orders = folder.resolve("worker-" + me);
    String[] order = Files.readString(orders).strip().split(" ");
    for (Map.Entry<String, String> variable : System.getenv().entrySet()) {
      if (variable.getKey().startsWith("MILLRACE_")) {
        System.err.println("has " + variable);
      }
    }
    switch (order[0]) {
      case "exit" -> System.exit(Integer.parseInt(order[1]));
      case "serve" ->
          serve(
              orders,
              order.length > 1 && order[1].matches("\\d+") ? Integer.parseInt(order[1]) : 0,
              true);
      case "hold" -> serve(orders, 0, false);
      default -> throw new IllegalArgumentException(order[0]);
    }
  }

  /** Live while its file says nothing else; on SIGTERM it ends with a code, or not at all. */
  private static void serve(Path orders, int code, boolean ends) throws InterruptedException {
    Runtime.getRuntime()
        .addShutdownHook(
            new Thread(
                () -> {
                  System.err.println("told to end");
                  while (!ends) {
                    Thread.onSpinWait();
                  }
                  Runtime.getRuntime().halt(code);
                }));
    StatusServer server =
        new StatusServer(
            "127.0.0.1",
            0,
            () -> "# HELP x_total Some.\n# TYPE x_total counter\nx_total{a=\"b\"} 1.0\n",
            () -> health(orders, "stuck"),
            () -> health(orders, "unready"));
    WorkerSupervisor.announce(server.port());
    Thread.sleep(Long.MAX_VALUE);
  }

  private static Health health(Path orders, String bad) {
    try {
      return new Health(!Files.readString(orders).contains(bad), "as told");
    } catch (IOException e) {
      return new Health(false, e.toString());
    }
  }
}
