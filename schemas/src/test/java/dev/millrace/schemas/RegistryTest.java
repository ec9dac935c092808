package dev.millrace.schemas;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The genuine client against a registry over HTTP that fails on demand. */
@Timeout(60)
class RegistryTest {
  private static final String TOPIC = "prompts";
  private static final UUID GUID = UUID.fromString("12345678-9abc-def0-0123-456789abcdef");

  private record Answer(int status, String body) {}

  private final Map<String, Answer> answers = new HashMap<>();
  private final List<String> requests = new ArrayList<>();
  private final ExecutorService threads = Executors.newSingleThreadExecutor();
  private HttpServer server = newServer();

  private static HttpServer newServer() {
    try {
      return HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
    } catch (IOException e) {
      throw new AssertionError(e);
    }
  }

  @BeforeEach
  void start() throws IOException {
    server.setExecutor(threads);
    server.createContext(
        "/",
        exchange -> {
          String path = exchange.getRequestURI().getPath();
          String authorization = exchange.getRequestHeaders().getFirst("Authorization");
          requests.add(path + (authorization == null ? "" : " " + authorization));
          Answer answer = answers.getOrDefault(path, new Answer(404, "{\"error_code\": 404}"));
          byte[] body = answer.body().getBytes(StandardCharsets.UTF_8);
          exchange.sendResponseHeaders(answer.status(), body.length);
          exchange.getResponseBody().write(body);
          exchange.close();
        });
    server.start();
    answers.put("/subjects/prompts-value/versions", new Answer(200, "{\"id\": 7}"));
    answers.put("/schemas/ids/7", schema(PromptEvent.SCHEMA$.toString()));
  }

  @AfterEach
  void stop() {
    server.stop(0);
    threads.shutdownNow();
  }

  private static Answer schema(String text) throws IOException {
    return new Answer(200, new ObjectMapper().writeValueAsString(Map.of("schema", text)));
  }

  private AvroSerde<PromptEvent> serde(String... settings) {
    Map<String, Object> all = new HashMap<>();
    all.put("schema.registry.url", "http://127.0.0.1:" + server.getAddress().getPort());
    for (int i = 0; i < settings.length; i += 2) {
      all.put(settings[i], settings[i + 1]);
    }
    return AvroSerde.of(PromptEvent.class, all);
  }

  private static byte[] bytes(AvroSerde<PromptEvent> serde) {
    byte[] bytes = serde.serializer().serialize(TOPIC, Events.prompt());
    assertThat(bytes).isNotNull();
    return bytes;
  }

  private static void assertUnavailable(
      AvroSerde<PromptEvent> serde, byte[] data, String... parts) {
    assertThatThrownBy(() -> serde.deserializer().deserialize(TOPIC, data))
        .isInstanceOf(RegistryUnavailableException.class)
        .satisfies(e -> assertThat(e.getMessage()).contains(List.of(parts)));
  }

  @Test
  void shouldReadAndWriteThroughTheRegistry() {
    try (AvroSerde<PromptEvent> serde = serde()) {
      assertThat(serde.deserializer().deserialize(TOPIC, bytes(serde))).isEqualTo(Events.prompt());
    }
  }

  @Test
  void shouldAskOnce() {
    try (AvroSerde<PromptEvent> writer = serde();
        AvroSerde<PromptEvent> reader = serde()) {
      for (int i = 0; i < 3; i++) {
        var unused = reader.deserializer().deserialize(TOPIC, bytes(writer));
      }
    }
    assertThat(requests).containsExactly("/subjects/prompts-value/versions", "/schemas/ids/7");
  }

  @Test
  void shouldGoOnWithKnownIdsWhenTheRegistryIsGone() {
    try (AvroSerde<PromptEvent> serde = serde()) {
      serde.serializer().prepare(TOPIC, PromptEvent.class);
      var unused = serde.deserializer().deserialize(TOPIC, bytes(serde));
      server.stop(0);
      assertThat(serde.deserializer().deserialize(TOPIC, bytes(serde))).isEqualTo(Events.prompt());
    }
  }

  @Test
  void shouldStallWhereNobodyListens() throws IOException {
    int port;
    try (ServerSocket socket = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
      port = socket.getLocalPort();
    }
    String url = "http://127.0.0.1:" + port;
    try (AvroSerde<PromptEvent> serde = serde("schema.registry.url", url)) {
      assertUnavailable(serde, new byte[] {0, 0, 0, 0, 7}, url, "Connection refused");
      assertThatThrownBy(() -> bytes(serde)).isInstanceOf(RegistryUnavailableException.class);
    }
  }

  @Test
  void shouldStallWhereNoAnswerComes() throws IOException {
    try (ServerSocket silent = new ServerSocket(0, 1, InetAddress.getLoopbackAddress());
        AvroSerde<PromptEvent> serde =
            serde(
                "schema.registry.url",
                "http://127.0.0.1:" + silent.getLocalPort(),
                "http.read.timeout.ms",
                "200")) {
      assertUnavailable(serde, new byte[] {0, 0, 0, 0, 7}, "timed out");
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {401, 403, 408, 429, 500, 502, 503})
  void shouldStallOnAnAnswerThatBlamesNotTheRecord(int status) {
    answers.put(
        "/schemas/ids/7", new Answer(status, "{\"error_code\": 50001, \"message\": \"no\"}"));
    answers.put("/subjects/prompts-value/versions", new Answer(status, "<html>"));
    try (AvroSerde<PromptEvent> serde = serde()) {
      assertUnavailable(serde, new byte[] {0, 0, 0, 0, 7}, "looking up schema id 7");
      assertThatThrownBy(() -> bytes(serde)).isInstanceOf(RegistryUnavailableException.class);
    }
  }

  @Test
  void shouldStallOnAnAnswerThatIsNoRegistrys() {
    answers.put("/schemas/ids/7", new Answer(200, "<html>log in</html>"));
    try (AvroSerde<PromptEvent> serde = serde()) {
      assertUnavailable(serde, new byte[] {0, 0, 0, 0, 7}, "looking up schema id 7");
    }
  }

  @Test
  void shouldStallWhereTheUrlIsNotTheApis() {
    answers.remove("/schemas/ids/7");
    try (AvroSerde<PromptEvent> serde = serde()) {
      assertUnavailable(
          serde, new byte[] {0, 0, 0, 0, 7}, "Does schema.registry.url end at the API's root?");
    }
  }

  @Test
  void shouldComeBackWhenTheRegistryDoes() {
    byte[] bytes;
    try (AvroSerde<PromptEvent> writer = serde()) {
      bytes = bytes(writer);
    }
    try (AvroSerde<PromptEvent> serde = serde()) {
      answers.put("/schemas/ids/7", new Answer(500, "{\"error_code\": 50001}"));
      assertUnavailable(serde, bytes, "looking up schema id 7");
      answers.put("/schemas/ids/7", answers(PromptEvent.SCHEMA$.toString()));
      assertThat(serde.deserializer().deserialize(TOPIC, bytes)).isEqualTo(Events.prompt());
    }
  }

  private static Answer answers(String text) {
    try {
      return schema(text);
    } catch (IOException e) {
      throw new AssertionError(e);
    }
  }

  @Test
  void shouldBlameTheRecordForAnUnknownId() {
    answers.put(
        "/schemas/ids/9", new Answer(404, "{\"error_code\": 40403, \"message\": \"none\"}"));
    try (AvroSerde<PromptEvent> serde = serde()) {
      assertThatThrownBy(() -> serde.deserializer().deserialize(TOPIC, new byte[] {0, 0, 0, 0, 9}))
          .isInstanceOf(BadRecordException.class)
          .hasMessageContainingAll("schema id 9", "no such schema");
    }
  }

  @Test
  void shouldBlameTheRecordForASchemaThatCannotBeRead() {
    String deep = "{\"type\": \"array\", \"items\": ".repeat(5000) + "\"int\"" + "}".repeat(5000);
    String large = "{\"type\": \"string\", \"doc\": \"" + "x".repeat(SchemaLimits.MAX_TEXT) + "\"}";
    for (String text : List.of("{\"type\": \"nonsense\"}", "{", "", deep, large)) {
      answers.put("/schemas/ids/9", answers(text));
      try (AvroSerde<PromptEvent> serde = serde()) {
        assertThatThrownBy(
                () -> serde.deserializer().deserialize(TOPIC, new byte[] {0, 0, 0, 0, 9}))
            .isInstanceOf(BadRecordException.class)
            .hasMessageContainingAll("schema id 9", "its schema");
      }
    }
  }

  @Test
  void shouldBlameTheRecordForASchemaThatIsNotAvro() {
    answers.put(
        "/schemas/ids/9", new Answer(200, "{\"schemaType\": \"JSON\", \"schema\": \"{}\"}"));
    try (AvroSerde<PromptEvent> serde = serde()) {
      assertThatThrownBy(() -> serde.deserializer().deserialize(TOPIC, new byte[] {0, 0, 0, 0, 9}))
          .isInstanceOf(BadRecordException.class)
          .hasMessageContaining("not Avro");
    }
  }

  @Test
  void shouldStallWhereAReferredSchemaCannotBeFetched() {
    answers.put(
        "/schemas/ids/9",
        new Answer(
            200,
            "{\"schema\": \"\\\"other.Type\\\"\", \"references\": [{\"name\": \"other.Type\","
                + " \"subject\": \"other\", \"version\": 1}]}"));
    answers.put("/subjects/other/versions/1", new Answer(500, "{\"error_code\": 50001}"));
    try (AvroSerde<PromptEvent> serde = serde()) {
      assertUnavailable(serde, new byte[] {0, 0, 0, 0, 9}, "that another one refers to");
    }
  }

  @Test
  void shouldLookUpAGuidInTheRecordOrInItsHeader() {
    answers.put("/schemas/guids/" + GUID, answers(PromptEvent.SCHEMA$.toString()));
    byte[] name =
        ByteBuffer.allocate(17)
            .put((byte) 1)
            .putLong(GUID.getMostSignificantBits())
            .putLong(GUID.getLeastSignificantBits())
            .array();
    try (AvroSerde<PromptEvent> serde = serde()) {
      byte[] withId = bytes(serde);
      byte[] avro = java.util.Arrays.copyOfRange(withId, 5, withId.length);
      byte[] withGuid = ByteBuffer.allocate(17 + avro.length).put(name).put(avro).array();
      assertThat(serde.deserializer().deserialize(TOPIC, withGuid)).isEqualTo(Events.prompt());
      RecordHeaders headers = new RecordHeaders();
      headers.add("__value_schema_id", name);
      assertThat(serde.deserializer().deserialize(TOPIC, headers, avro)).isEqualTo(Events.prompt());
    }
  }

  @Test
  void shouldSayThatARegistryCannotLookUpGuids() {
    byte[] data = new byte[20];
    data[0] = 1;
    try (AvroSerde<PromptEvent> serde = serde()) {
      assertThatThrownBy(() -> serde.deserializer().deserialize(TOPIC, data))
          .isInstanceOf(BadRecordException.class)
          .hasMessageContainingAll(
              "schema GUID 00000000-0000-0000-0000-000000000000", "cannot look up GUIDs");
    }
  }

  @Test
  void shouldSayThatTheRegistryRefusesOurSchema() {
    answers.put(
        "/subjects/prompts-value/versions",
        new Answer(409, "{\"error_code\": 409, \"message\": \"incompatible\"}"));
    try (AvroSerde<PromptEvent> serde = serde()) {
      assertThatThrownBy(() -> bytes(serde))
          .isInstanceOf(RegistryUnavailableException.class)
          .hasMessageContainingAll(
              "refuses the schema dev.millrace.schemas.PromptEvent",
              "prompts-value",
              "incompatible");
    }
  }

  @Test
  void shouldSendCredentials() {
    try (AvroSerde<PromptEvent> serde =
        serde("basic.auth.credentials.source", "USER_INFO", "basic.auth.user.info", "ann:secret")) {
      byte[] unused = bytes(serde);
    }
    String expected =
        Base64.getEncoder().encodeToString("ann:secret".getBytes(StandardCharsets.UTF_8));
    assertThat(requests).containsExactly("/subjects/prompts-value/versions Basic " + expected);
  }
}
