package dev.millrace.topology;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import java.util.Map;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.streams.errors.ErrorHandlerContext;
import org.apache.kafka.streams.errors.ProductionExceptionHandler.Result;
import org.apache.kafka.streams.errors.internals.DefaultErrorHandlerContext;
import org.apache.kafka.streams.processor.TaskId;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** Records that the broker refuses: an outcome must not be lost. */
class HandlersTest {
  private static final ErrorHandlerContext CONTEXT =
      new DefaultErrorHandlerContext(
          null,
          "prompts",
          0,
          0,
          new RecordHeaders(),
          "completions-out",
          new TaskId(0, 0),
          0,
          new byte[0],
          new byte[0]);

  private final OutputLimits limits = new OutputLimits(1_000_000);
  private final Handlers handlers = new Handlers();

  @BeforeEach
  void configure() {
    handlers.configure(Map.of(Handlers.LIMITS, limits));
  }

  private Result refused(String topic, Exception why) {
    return handlers
        .handleError(CONTEXT, new ProducerRecord<>(topic, "k".getBytes(UTF_8), new byte[100]), why)
        .result();
  }

  @Test
  void shouldNotGoOnWithoutAnOutcome() {
    assertThat(refused("completions", new TimeoutException("gone"))).isEqualTo(Result.FAIL);
    assertThat(refused("completions", new RecordTooLargeException("large"))).isEqualTo(Result.FAIL);
    assertThat(limits.of("completions")).as("the next try knows").isEqualTo(100);
  }

  @Test
  void shouldNotGoOnWithoutAChangelogRecord() {
    assertThat(refused("app-prompts-changelog", new RecordTooLargeException("large")))
        .isEqualTo(Result.FAIL);
    assertThat(limits.of("app-prompts-changelog")).isEqualTo(1_000_000);
  }
}
