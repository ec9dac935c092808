package dev.millrace.schemas;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.sun.net.httpserver.HttpServer;
import dev.millrace.schemas.WireFormat.SchemaRef;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.avro.Schema;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
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
          byte[] body = answer.body().getBytes(UTF_8);
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

  private Registry registry(String url, AtomicLong clock) {
    Map<String, String> settings =
        Map.of("schema.registry.url", url, "basic.auth.credentials.source", "URL");
    RegistryConfig config = RegistryConfig.of(settings);
    return Registry.connect(config, clock::get);
  }

  private String url(String userInfo) {
    return "http://" + userInfo + "127.0.0.1:" + server.getAddress().getPort();
  }

  private static void assertOutage(ThrowingCallable call, String... parts) {
    assertThatThrownBy(call)
        .isInstanceOf(RegistryUnavailableException.class)
        .satisfies(e -> assertThat(e.getMessage()).contains(List.of(parts)));
  }

  @Test
  void shouldFailAtOnceForAWhileAfterAnOutage() throws IOException {
    answers.put("/schemas/ids/8", new Answer(500, "{\"error_code\": 50001}"));
    AtomicLong clock = new AtomicLong(Long.MAX_VALUE - 1);
    try (Registry registry = registry(url(""), clock)) {
      int known = registry.id("prompts-value", PromptEvent.SCHEMA$);
      Schema read = registry.schema(new SchemaRef.Id(7));
      assertOutage(() -> registry.schema(new SchemaRef.Id(8)), "looking up schema id 8");
      int asked = requests.size();

      clock.addAndGet(CircuitBreaker.PAUSE_MS * 1_000_000 - 1);
      for (int i = 0; i < 100; i++) {
        assertOutage(
            () -> registry.schema(new SchemaRef.Id(8)), "not asked again", "schema id 8", url(""));
        assertOutage(() -> registry.id("other-value", PromptEvent.SCHEMA$), "not asked again");
      }
      // What is known needs no registry.
      assertThat(registry.id("prompts-value", PromptEvent.SCHEMA$)).isEqualTo(known);
      assertThat(registry.schema(new SchemaRef.Id(7))).isSameAs(read);
      assertThat(requests).hasSize(asked);

      clock.addAndGet(1);
      assertOutage(() -> registry.schema(new SchemaRef.Id(8)), "looking up schema id 8");
      int askedAgain = requests.size();
      assertThat(askedAgain).isGreaterThan(asked);
      assertOutage(() -> registry.schema(new SchemaRef.Id(8)), "not asked again");
      assertThat(requests).hasSize(askedAgain);
    }
  }

  @Test
  void shouldComeBackWhenTheRegistryDoes() throws IOException {
    answers.put("/schemas/ids/8", new Answer(500, "{\"error_code\": 50001}"));
    AtomicLong clock = new AtomicLong();
    try (Registry registry = registry(url(""), clock)) {
      assertOutage(() -> registry.schema(new SchemaRef.Id(8)), "looking up schema id 8");
      answers.put("/schemas/ids/8", answers(PromptEvent.SCHEMA$.toString()));
      clock.addAndGet(CircuitBreaker.PAUSE_MS * 1_000_000);
      assertThat(registry.schema(new SchemaRef.Id(8))).isEqualTo(PromptEvent.SCHEMA$);
      assertThat(registry.schema(new SchemaRef.Id(7))).isEqualTo(PromptEvent.SCHEMA$);
    }
  }

  @Test
  void shouldGoOnAskingAfterARefusal() throws IOException {
    answers.put("/subjects/taken-value/versions", new Answer(409, "{\"error_code\": 409}"));
    answers.put("/schemas/ids/9", new Answer(404, "{\"error_code\": 40403}"));
    try (Registry registry = registry(url(""), new AtomicLong())) {
      assertOutage(() -> registry.id("taken-value", PromptEvent.SCHEMA$), "refuses the schema");
      assertThatThrownBy(() -> registry.schema(new SchemaRef.Id(9)))
          .isInstanceOf(BadRecordException.class);
      assertThat(registry.id("prompts-value", PromptEvent.SCHEMA$)).isEqualTo(7);
    }
  }

  static String trace(Throwable e) {
    StringWriter text = new StringWriter();
    e.printStackTrace(new PrintWriter(text));
    return text.toString();
  }

  @Test
  void shouldTellNoCredentialsOfItsUrl() throws IOException {
    String told = "{\"error_code\": %d, \"message\": \"no: ann:s3c%%2Fret is ann:s3c/ret\"}";
    answers.put("/schemas/ids/8", new Answer(500, told.formatted(50001)));
    answers.put("/schemas/ids/9", new Answer(404, told.formatted(40403)));
    answers.put("/subjects/taken-value/versions", new Answer(409, told.formatted(409)));
    AtomicLong clock = new AtomicLong();
    try (Registry registry = registry(url("ann:s3c%2Fret@"), clock)) {
      assertThat(registry.id("prompts-value", PromptEvent.SCHEMA$)).isEqualTo(7);
      String sent = Base64.getEncoder().encodeToString("ann:s3c%2Fret".getBytes(UTF_8));
      assertThat(requests).containsExactly("/subjects/prompts-value/versions Basic " + sent);
      List<ThrowingCallable> calls =
          List.of(
              () -> registry.id("taken-value", PromptEvent.SCHEMA$),
              () -> registry.schema(new SchemaRef.Id(9)),
              () -> registry.schema(new SchemaRef.Id(8)),
              () -> registry.schema(new SchemaRef.Id(8)));
      for (ThrowingCallable call : calls) {
        assertThatThrownBy(call)
            .isInstanceOf(SerializationException.class)
            .hasMessageContaining(url(""))
            .hasStackTraceContaining("no: [hidden] is [hidden]")
            .satisfies(e -> assertThat(trace(e)).doesNotContain("s3c"));
      }
    }
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "http://ann:s3cret@127.0.0.1:1",
        "http://ann:s3cret/@127.0.0.1:1",
        "http://ann:s3cret%zz@127.0.0.1:1",
        "ann:s3cret@127.0.0.1:1",
        "http://s3cret@127.0.0.1:1:1",
      })
  void shouldTellNoCredentialsOfAUrlThatIsWrong(String url) {
    assertThatThrownBy(
            () -> {
              try (Registry registry = registry(url, new AtomicLong())) {
                registry.schema(new SchemaRef.Id(7));
              }
            })
        .satisfies(e -> assertThat(trace(e)).doesNotContain("s3cret").contains("127.0.0.1:1"));
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
  void shouldBlameTheRecordForASchemaWhoseTypesNestByTheirNames() {
    // Flat text: each record has the one before as its field.
    StringBuilder fields = new StringBuilder("{\"name\": \"f0\", \"type\": \"int\"}");
    for (int i = 1; i <= SchemaLimits.MAX_DEPTH; i++) {
      String inner = i == 1 ? "int" : "R" + (i - 1);
      fields.append(
          (", {\"name\": \"f%1$d\", \"type\": {\"type\": \"record\", \"name\": \"R%1$d\","
                  + " \"fields\": [{\"name\": \"r\", \"type\": \"%2$s\"}]}}")
              .formatted(i, inner));
    }
    answers.put(
        "/schemas/ids/9",
        answers(
            "{\"type\": \"record\", \"name\": \"PromptEvent\", \"namespace\":"
                + " \"dev.millrace.schemas\", \"fields\": ["
                + fields
                + "]}"));
    try (AvroSerde<PromptEvent> serde = serde()) {
      assertThatThrownBy(
              () -> serde.deserializer().deserialize(TOPIC, new byte[] {0, 0, 0, 0, 9, 0, 0}))
          .isInstanceOf(BadRecordException.class)
          .hasMessageContainingAll("schema id 9", "nested deeper than 100 levels");
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
    String expected = Base64.getEncoder().encodeToString("ann:secret".getBytes(UTF_8));
    assertThat(requests).containsExactly("/subjects/prompts-value/versions Basic " + expected);
  }
}
