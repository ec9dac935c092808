package dev.millrace.topology;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.function.Supplier;

/**
 * A small HTTP server: {@code /metrics} for Prometheus, {@code /health/live} and {@code
 * /health/ready} for whoever restarts the worker and sends it work. Read only; listens on loopback
 * unless told otherwise. Whoever makes it closes it.
 */
public final class StatusServer implements AutoCloseable {
  private static final int OK = 200;
  private static final int UNAVAILABLE = 503;
  private static final int NOT_ALLOWED = 405;

  private final HttpServer server;
  private final ExecutorService threads;

  /**
   * An answer about the worker's health.
   *
   * @param reason why, for people
   */
  public record Health(boolean good, String reason) {}

  /**
   * Listens from now on.
   *
   * @param port 0: any free one
   * @throws ConfigException if it cannot
   */
  public StatusServer(
      String host,
      int port,
      Supplier<String> metrics,
      Supplier<Health> live,
      Supplier<Health> ready) {
    try {
      server = HttpServer.create(new InetSocketAddress(host, port), 0);
    } catch (IOException e) {
      throw new ConfigException(
          "the status server cannot listen on %s:%d (%s): set status.host and status.port, or"
                  .formatted(host, port, e.getMessage())
              + " status.port=-1 for none",
          e);
    }
    threads =
        Executors.newFixedThreadPool(
            2, Thread.ofPlatform().daemon().name("millrace-status-", 0).factory());
    server.setExecutor(threads);
    on(
        "/metrics",
        "text/plain; version=0.0.4; charset=utf-8",
        () -> new Health(true, metrics.get()));
    on("/health/live", "text/plain; charset=utf-8", live);
    on("/health/ready", "text/plain; charset=utf-8", ready);
    server.start();
  }

  private void on(String path, String type, Supplier<Health> answer) {
    server.createContext(
        path,
        exchange -> {
          try (exchange) {
            if (!exchange.getRequestMethod().equals("GET")) {
              exchange.sendResponseHeaders(NOT_ALLOWED, -1);
              return;
            }
            Health health = answer.get();
            send(exchange, health.good() ? OK : UNAVAILABLE, type, health.reason());
          } catch (RuntimeException e) {
            throw new UncheckedIOException(new IOException("status of " + path, e));
          }
        });
  }

  private static void send(HttpExchange exchange, int code, String type, String text)
      throws IOException {
    byte[] body = (text.endsWith("\n") ? text : text + "\n").getBytes(StandardCharsets.UTF_8);
    exchange.getResponseHeaders().set("Content-Type", type);
    exchange.sendResponseHeaders(code, body.length);
    exchange.getResponseBody().write(body);
  }

  /** Where it listens. */
  public int port() {
    return server.getAddress().getPort();
  }

  @Override
  public void close() {
    server.stop(0);
    threads.shutdownNow();
  }
}
