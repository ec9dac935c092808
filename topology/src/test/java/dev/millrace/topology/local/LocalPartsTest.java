package dev.millrace.topology.local;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.net.InetAddress;
import java.net.NetworkInterface;
import java.net.Socket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The local parts start, keep their data over a restart, listen on loopback alone, and end. */
final class LocalPartsTest {
  @TempDir Path temp;

  @Test
  void shouldKeepTopicsWhenTheBrokerRestarts() throws Exception {
    try (LocalBroker broker = LocalBroker.start(temp.resolve("broker"))) {
      createTopic(broker.bootstrap());
      broker.stop();
      broker.start();
      assertThat(topics(broker.bootstrap())).containsExactly("kept");
    }
  }

  @Test
  void shouldKeepTopicsWhenAForkedBrokerIsKilled() throws Exception {
    try (ForkedBroker broker = ForkedBroker.start(temp.resolve("broker"), Map.of())) {
      createTopic(broker.bootstrap());
      broker.kill9();
      broker.start();
      assertThat(topics(broker.bootstrap())).containsExactly("kept");
    }
  }

  @Test
  void shouldKeepSchemaIdsWhenTheRegistryIsKilled() throws Exception {
    try (LocalRegistry registry = LocalRegistry.start(temp.resolve("registry"))) {
      String body = "{\"schema\": \"\\\"string\\\"\"}";
      String first = post(registry.url() + "/subjects/s-value/versions", body);
      assertThat(first).contains("\"id\"");
      registry.kill9();
      registry.start();
      assertThat(post(registry.url() + "/subjects/s-value/versions", body)).isEqualTo(first);
      assertReachableOnLoopbackOnly(URI.create(registry.url()).getPort());
    }
  }

  @Test
  void shouldSayWhyWhenAProcessEndsBeforeItIsReady() {
    ForkedJvm jvm =
        ForkedJvm.start(
            new ForkedJvm.Spec(
                "the process",
                List.of("-Xmx32m"),
                null,
                "no.such.Class",
                List.of(),
                temp.resolve("log"),
                null));
    assertThatThrownBy(() -> jvm.awaitReady(Duration.ofSeconds(20), () -> false))
        .isInstanceOf(IllegalStateException.class)
        .hasMessageContaining("ended with code 1 before it was ready")
        .hasMessageContaining("no.such.Class");
  }

  private static void createTopic(String bootstrap) throws Exception {
    try (Admin admin = admin(bootstrap)) {
      admin.createTopics(List.of(new NewTopic("kept", 1, (short) 1))).all().get();
    }
  }

  private static Iterable<String> topics(String bootstrap) throws Exception {
    try (Admin admin = admin(bootstrap)) {
      return admin.listTopics().names().get();
    }
  }

  private static Admin admin(String bootstrap) {
    Properties p = new Properties();
    p.setProperty("bootstrap.servers", bootstrap);
    return Admin.create(p);
  }

  private static String post(String url, String body) throws Exception {
    try (HttpClient http = HttpClient.newHttpClient()) {
      HttpRequest request =
          HttpRequest.newBuilder(URI.create(url))
              .header("Content-Type", "application/vnd.schemaregistry.v1+json")
              .POST(HttpRequest.BodyPublishers.ofString(body))
              .build();
      return http.send(request, HttpResponse.BodyHandlers.ofString()).body();
    }
  }

  private static void assertReachableOnLoopbackOnly(int port) throws Exception {
    for (NetworkInterface network : NetworkInterface.networkInterfaces().toList()) {
      for (InetAddress address : network.inetAddresses().toList()) {
        if (address.isLoopbackAddress()) {
          continue;
        }
        assertThatThrownBy(() -> new Socket(address, port).close())
            .as("the registry answers on %s", address)
            .isInstanceOf(java.io.IOException.class);
      }
    }
  }
}
