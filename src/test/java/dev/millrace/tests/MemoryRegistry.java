package dev.millrace.tests;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

/**
 * As much of a schema registry as workers and clients need, for several processes on a machine that
 * has no other: it hands out ids and gives schemas back, and checks nothing. Whoever starts it
 * closes it.
 */
final class MemoryRegistry implements AutoCloseable {
  private static final String BY_ID = "/schemas/ids/";
  private static final ObjectMapper JSON = new ObjectMapper();

  private final HttpServer server;
  private final List<String> schemas = new ArrayList<>();

  private MemoryRegistry(HttpServer server) {
    this.server = server;
  }

  static MemoryRegistry start() {
    try {
      InetSocketAddress address = new InetSocketAddress(InetAddress.getLoopbackAddress(), 0);
      MemoryRegistry registry = new MemoryRegistry(HttpServer.create(address, 50));
      registry.server.createContext("/", registry::answer);
      registry.server.start();
      return registry;
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** For {@code registry.url}. */
  String url() {
    return "http://127.0.0.1:" + server.getAddress().getPort();
  }

  private void answer(HttpExchange exchange) throws IOException {
    try (exchange) {
      String path = exchange.getRequestURI().getPath();
      byte[] body = exchange.getRequestBody().readAllBytes();
      if (path.startsWith(BY_ID)) {
        int id = Integer.parseInt(path.substring(BY_ID.length()));
        send(exchange, JSON.createObjectNode().put("schema", schemas.get(id - 1)));
      } else {
        send(exchange, JSON.createObjectNode().put("id", id(JSON.readTree(body))));
      }
    }
  }

  /** From 1, the same for the same schema. The server has one thread. */
  private int id(JsonNode registration) {
    String schema = registration.required("schema").asText();
    if (!schemas.contains(schema)) {
      schemas.add(schema);
    }
    return schemas.indexOf(schema) + 1;
  }

  private static void send(HttpExchange exchange, JsonNode answer) throws IOException {
    byte[] bytes = answer.toString().getBytes(StandardCharsets.UTF_8);
    exchange.getResponseHeaders().add("Content-Type", "application/vnd.schemaregistry.v1+json");
    exchange.sendResponseHeaders(200, bytes.length);
    exchange.getResponseBody().write(bytes);
  }

  @Override
  public void close() {
    server.stop(0);
  }
}
