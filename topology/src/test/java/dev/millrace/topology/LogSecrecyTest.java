package dev.millrace.topology;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import ch.qos.logback.classic.Level;
import ch.qos.logback.classic.Logger;
import ch.qos.logback.classic.encoder.JsonEncoder;
import ch.qos.logback.classic.spi.ILoggingEvent;
import ch.qos.logback.core.AppenderBase;
import dev.millrace.inference.api.GenerateEvent.Failure;
import dev.millrace.inference.api.GenerateEvent.ToolCall;
import dev.millrace.schemas.MessageRole;
import dev.millrace.schemas.PromptEvent;
import dev.millrace.schemas.PromptMessage;
import dev.millrace.schemas.PromptTool;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.slf4j.LoggerFactory;

/** No log line quotes a prompt or an answer, whatever goes wrong with it. */
class LogSecrecyTest {
  private static final String MARKER = "Xanadu-4711";

  private final Logger root = (Logger) LoggerFactory.getLogger(org.slf4j.Logger.ROOT_LOGGER_NAME);
  private final Logger ours = (Logger) LoggerFactory.getLogger("dev.millrace");
  private final Lines lines = new Lines();
  private final Harness harness = new Harness("engine.attempts", "2");

  /** Every line as the JSON log would have it: message, context and throwables. */
  private static final class Lines extends AppenderBase<ILoggingEvent> {
    private final JsonEncoder encoder = new JsonEncoder();
    final List<String> all = Collections.synchronizedList(new ArrayList<>());

    @Override
    protected void append(ILoggingEvent event) {
      all.add(new String(encoder.encode(event), UTF_8));
    }
  }

  @BeforeEach
  void listen() {
    lines.encoder.setContext(root.getLoggerContext());
    lines.encoder.setWithFormattedMessage(true);
    lines.encoder.start();
    lines.setContext(root.getLoggerContext());
    lines.start();
    root.addAppender(lines);
    ours.setLevel(Level.TRACE);
  }

  @AfterEach
  void close() {
    harness.close();
    root.detachAppender(lines);
    ours.setLevel(null);
  }

  private static PromptEvent.Builder secret(String id) {
    return PromptEvent.newBuilder()
        .setId(id)
        .setMessages(
            List.of(
                PromptMessage.newBuilder()
                    .setRole(MessageRole.USER)
                    .setContent("who lives in " + MARKER)
                    .build()));
  }

  private void assertSecretKept(String what) {
    assertThat(lines.all)
        .as("log lines of %s", what)
        .isNotEmpty()
        .noneMatch(l -> l.contains(MARKER));
    lines.all.clear();
  }

  @Test
  void shouldNotQuoteRecordsThatCannotBeRead() {
    harness.send("k".getBytes(UTF_8), MARKER.getBytes(UTF_8), Map.of("note", MARKER));
    byte[] cut = harness.bytes(secret("cut").build());
    harness.send("k".getBytes(UTF_8), java.util.Arrays.copyOf(cut, cut.length - 4), Map.of());
    byte[] longer = java.util.Arrays.copyOf(cut, cut.length + 30);
    System.arraycopy(MARKER.getBytes(UTF_8), 0, longer, cut.length, MARKER.length());
    harness.send("k".getBytes(UTF_8), longer, Map.of());
    assertThat(harness.deadLetters()).hasSizeGreaterThanOrEqualTo(2);
    assertSecretKept("unreadable records");
  }

  @Test
  void shouldNotQuotePromptsThatAreRefused() {
    harness.send(secret("m").setModel(MARKER).build());
    harness.send(
        secret("t")
            .setTools(
                List.of(PromptTool.newBuilder().setName("f").setParameters("{" + MARKER).build()))
            .build());
    harness.send(
        secret("t2")
            .setTools(
                List.of(PromptTool.newBuilder().setName(MARKER + "(").setParameters("{}").build()))
            .build());
    assertThat(harness.deadLetters()).isNotEmpty();
    assertSecretKept("refused prompts");
  }

  @Test
  void shouldNotQuoteWhatTheEngineSaysOfAPrompt() {
    for (Failure failure : Failure.values()) {
      harness.send(secret("f-" + failure).build());
      harness.generator.last().failed(failure, "cannot encode '" + MARKER + "'");
      harness.tick();
    }
    harness.send(secret("twice").build());
    harness.generator.last().failed(Failure.ENGINE, MARKER);
    for (int i = 0; i < 300; i++) {
      harness.tick();
    }
    harness.generator.last().failed(Failure.ENGINE, MARKER);
    harness.tick();
    assertThat(harness.deadLetters()).hasSizeGreaterThanOrEqualTo(4);
    assertSecretKept("failed prompts");
  }

  @Test
  void shouldNotQuoteAPromptThatHitsADefect() {
    harness.generator.thrown = new IllegalStateException("no such thing as " + MARKER);
    harness.send(secret("throws").build());
    harness.tick();
    harness.generator.thrown = null;
    harness.send(secret("null").build());
    // A call without a name is a defect of the engine: nothing downstream expects it.
    harness.generator.last().done(MARKER, new ToolCall(0, noName(), MARKER, MARKER));
    harness.tick();
    assertSecretKept("defects");
  }

  @SuppressWarnings({"NullAway", "DataFlowIssue"})
  private static String noName() {
    return null;
  }

  @Test
  void shouldNameThePromptInALineAboutIt() {
    harness.send(secret("named").build());
    harness.generator.last().failed(Failure.ENGINE, "x");
    harness.tick();
    assertThat(lines.all)
        .anyMatch(
            l -> l.contains("submitted again") && l.contains("\"mdc\": {\"prompt\":\"named\"}"));
  }
}
