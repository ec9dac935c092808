package dev.millrace.topology;

import java.util.Map;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.streams.errors.ErrorHandlerContext;
import org.apache.kafka.streams.errors.ProductionExceptionHandler;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * What happens to a record that the broker refuses: the thread ends and nothing is committed, so
 * that the prompt is taken up again. Where the record was too large for its topic, that is noted
 * first; the next attempt then becomes a dead letter instead of going round for ever.
 *
 * <p>Kafka Streams makes it by name and hands it the worker's {@link OutputLimits} with its
 * configuration.
 */
public final class Handlers implements ProductionExceptionHandler {
  private static final Logger log = LoggerFactory.getLogger(Handlers.class);

  /** Configuration key under which the {@link OutputLimits} come. */
  static final String LIMITS = "millrace.output.limits";

  private @Nullable OutputLimits limits;

  @Override
  public void configure(Map<String, ?> configs) {
    if (configs.get(LIMITS) instanceof OutputLimits given) {
      limits = given;
    }
  }

  @Override
  public Response handleError(
      ErrorHandlerContext context, ProducerRecord<byte[], byte[]> record, Exception exception) {
    if (exception instanceof RecordTooLargeException
        && limits != null
        && !record.topic().endsWith("-changelog")) {
      long bytes =
          (record.key() == null ? 0L : record.key().length)
              + (record.value() == null ? 0L : record.value().length)
              + PromptRecord.headerBytes(record.headers());
      limits.refused(record.topic(), bytes);
    }
    log.error("the broker refused a record for topic {}", record.topic(), exception);
    return Response.fail();
  }
}
