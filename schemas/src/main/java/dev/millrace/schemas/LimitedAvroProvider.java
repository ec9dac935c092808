package dev.millrace.schemas;

import com.fasterxml.jackson.core.JacksonException;
import io.confluent.kafka.schemaregistry.ParsedSchema;
import io.confluent.kafka.schemaregistry.avro.AvroSchemaProvider;
import io.confluent.kafka.schemaregistry.client.rest.entities.Schema;
import io.confluent.kafka.schemaregistry.client.rest.exceptions.RestClientException;
import java.io.IOException;
import java.util.Optional;

/**
 * Parses schema texts for the registry client. Its own provider answers every failure with
 * "invalid", which would make a dead letter of a good record when the registry went down between a
 * schema and the schemas that it refers to.
 */
final class LimitedAvroProvider extends AvroSchemaProvider {

  @Override
  public Optional<ParsedSchema> parseSchema(Schema schema, boolean isNew, boolean normalize) {
    int length = schema.getSchema().length();
    if (length > SchemaLimits.MAX_TEXT) {
      throw new BadRecordException(
          "its schema has "
              + length
              + " characters, more than the "
              + SchemaLimits.MAX_TEXT
              + " that are read");
    }
    try {
      return Optional.of(parseSchemaOrElseThrow(schema, isNew, normalize));
    } catch (RuntimeException e) {
      for (Throwable cause = e; cause != null; cause = cause.getCause()) {
        boolean answered = cause instanceof JacksonException;
        if (!answered && (cause instanceof IOException || cause instanceof RestClientException)) {
          throw new RegistryUnavailableException(
              "the registry did not give a schema that another one refers to: " + cause, e);
        }
      }
      throw new BadRecordException("its schema is not valid Avro: " + e.getMessage(), e);
    }
  }
}
