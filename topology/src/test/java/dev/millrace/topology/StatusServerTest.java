package dev.millrace.topology;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.millrace.topology.StatusServer.Health;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

class StatusServerTest {
  private static final Health GOOD = new Health(true, "RUNNING");

  private final StatusServer server =
      new StatusServer(
          "127.0.0.1", 0, () -> "millrace_x 1\n", () -> GOOD, () -> new Health(false, "STARTING"));

  @AfterEach
  void close() {
    server.close();
  }

  private HttpResponse<String> ask(String method, String path) throws Exception {
    try (HttpClient client = HttpClient.newHttpClient()) {
      return client.send(
          HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + server.port() + path))
              .method(method, HttpRequest.BodyPublishers.noBody())
              .build(),
          HttpResponse.BodyHandlers.ofString());
    }
  }

  @Test
  void shouldShowMetricsAndHealth() throws Exception {
    assertThat(ask("GET", "/metrics").body()).isEqualTo("millrace_x 1\n");
    assertThat(ask("GET", "/health/live").statusCode()).isEqualTo(200);
    assertThat(ask("GET", "/health/ready").statusCode()).isEqualTo(503);
    assertThat(ask("GET", "/health/ready").body()).contains("STARTING");
    assertThat(ask("GET", "/else").statusCode()).isEqualTo(404);
    assertThat(ask("POST", "/metrics").statusCode()).isEqualTo(405);
  }

  @Test
  void shouldSayWhatToDoWhenItsPortIsTaken() {
    assertThatThrownBy(
            () ->
                new StatusServer("127.0.0.1", server.port(), () -> "", () -> GOOD, () -> GOOD)
                    .close())
        .isInstanceOf(ConfigException.class)
        .hasMessageContaining("status.port");
  }
}
