package dev.millrace.topology.chaos;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import dev.millrace.topology.local.Ports;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.jspecify.annotations.Nullable;

/**
 * What workers take for the schema registry: passes requests on to the real one, and can be told to
 * be slow, to answer 500, or not to listen. Whoever opens it closes it; for one thread.
 */
final class RegistryFront implements AutoCloseable {
  private static final Duration SLOW = Duration.ofSeconds(3);
  private static final Duration TIMEOUT = Duration.ofSeconds(30);

  private final URI target;
  private final int port;
  private final HttpClient http = HttpClient.newHttpClient();
  private final ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor();
  private @Nullable HttpServer server;
  private volatile boolean failing;
  private volatile boolean slow;

  private RegistryFront(String target) {
    this.target = URI.create(target);
    this.port = Ports.free(1)[0];
  }

  static RegistryFront open(String target) {
    RegistryFront front = new RegistryFront(target);
    front.listen();
    return front;
  }

  /** For {@code registry.url}. */
  String url() {
    return "http://127.0.0.1:" + port + target.getPath();
  }

  private void listen() {
    try {
      HttpServer made =
          HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), port), 50);
      made.setExecutor(threads);
      made.createContext("/", this::answer);
      made.start();
      server = made;
    } catch (IOException e) {
      throw new UncheckedIOException("cannot listen on port " + port, e);
    }
  }

  /** From now on connections are refused. */
  void refuse() {
    if (server != null) {
      server.stop(0);
      server = null;
    }
  }

  void fail() {
    failing = true;
  }

  void slowDown() {
    slow = true;
  }

  void mend() {
    failing = false;
    slow = false;
    if (server == null) {
      listen();
    }
  }

  private void answer(HttpExchange exchange) throws IOException {
    try (exchange) {
      if (slow) {
        Thread.sleep(SLOW);
      }
      if (failing) {
        exchange.getResponseHeaders().add("Content-Type", "application/json");
        send(exchange, 500, "{\"error_code\": 50001, \"message\": \"broken on purpose\"}");
        return;
      }
      byte[] body = exchange.getRequestBody().readAllBytes();
      HttpRequest.Builder request =
          HttpRequest.newBuilder(target.resolve(exchange.getRequestURI().toString()))
              .timeout(TIMEOUT)
              .method(
                  exchange.getRequestMethod(),
                  body.length == 0
                      ? HttpRequest.BodyPublishers.noBody()
                      : HttpRequest.BodyPublishers.ofByteArray(body));
      for (String name : new String[] {"Content-Type", "Accept"}) {
        String value = exchange.getRequestHeaders().getFirst(name);
        if (value != null) {
          request.header(name, value);
        }
      }
      HttpResponse<String> response =
          http.send(request.build(), HttpResponse.BodyHandlers.ofString());
      response
          .headers()
          .firstValue("Content-Type")
          .ifPresent(type -> exchange.getResponseHeaders().add("Content-Type", type));
      send(exchange, response.statusCode(), response.body());
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  private static void send(HttpExchange exchange, int status, String text) throws IOException {
    byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
    exchange.sendResponseHeaders(status, bytes.length == 0 ? -1 : bytes.length);
    exchange.getResponseBody().write(bytes);
  }

  @Override
  public void close() {
    refuse();
    threads.shutdownNow();
    http.shutdownNow();
  }
}
