package dev.millrace.schemas;

import com.fasterxml.jackson.core.type.TypeReference;
import dev.millrace.schemas.WireFormat.SchemaRef;
import io.confluent.kafka.schemaregistry.ParsedSchema;
import io.confluent.kafka.schemaregistry.avro.AvroSchema;
import io.confluent.kafka.schemaregistry.avro.AvroSchemaProvider;
import io.confluent.kafka.schemaregistry.client.CachedSchemaRegistryClient;
import io.confluent.kafka.schemaregistry.client.SchemaRegistryClient;
import io.confluent.kafka.schemaregistry.client.rest.RestService;
import io.confluent.kafka.schemaregistry.client.rest.entities.SchemaString;
import io.confluent.kafka.schemaregistry.client.rest.exceptions.RestClientException;
import io.confluent.kafka.schemaregistry.testutil.MockSchemaRegistry;
import java.io.Closeable;
import java.io.IOException;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.LongSupplier;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import org.apache.avro.Schema;
import org.apache.kafka.common.config.ConfigException;
import org.jspecify.annotations.Nullable;

/**
 * The registry as the serde needs it: two questions, asked once each, and every failure told apart
 * by what the caller must do about it. An outage is told at once for a while after it: see {@link
 * CircuitBreaker}. Safe for several threads. Its serdes own it, and the first that is closed closes
 * it.
 */
final class Registry implements Closeable {
  private static final int CACHED_SCHEMAS = 1000;
  private static final int NOT_FOUND = 404;
  private static final int SUBJECT_NOT_FOUND = 40401;
  private static final int SCHEMA_NOT_FOUND = 40403;
  private static final int CONFLICT = 409;
  private static final int UNPROCESSABLE = 422;

  private final SchemaRegistryClient client;
  private final @Nullable RestService rest;
  private final Secrets secrets;
  private final CircuitBreaker breaker;
  private final AtomicBoolean closed = new AtomicBoolean();
  // Without credentials.
  private final String where;
  private final boolean autoRegister;

  private final Map<SchemaRef, Schema> schemas =
      new LinkedHashMap<>(16, 0.75f, true) {
        @Override
        protected boolean removeEldestEntry(Map.Entry<SchemaRef, Schema> eldest) {
          return size() > CACHED_SCHEMAS;
        }
      };
  private final Map<SubjectAndSchema, Integer> ids = new ConcurrentHashMap<>();

  private record SubjectAndSchema(String subject, Schema schema) {}

  /** Uses a client that the caller made; GUIDs cannot be looked up through it. */
  Registry(SchemaRegistryClient client, boolean autoRegister) {
    this(client, null, List.of(client.getClass().getSimpleName()), autoRegister, System::nanoTime);
  }

  private Registry(
      SchemaRegistryClient client,
      @Nullable RestService rest,
      List<String> urls,
      boolean autoRegister,
      LongSupplier nanoTime) {
    this.client = client;
    this.rest = rest;
    this.secrets = Secrets.of(urls);
    this.where = urls.stream().map(Secrets::without).collect(Collectors.joining(","));
    this.autoRegister = autoRegister;
    this.breaker = new CircuitBreaker(nanoTime);
  }

  /** Makes the client; asks the registry nothing yet. */
  static Registry connect(RegistryConfig config) {
    return connect(config, System::nanoTime);
  }

  /** With a clock that never goes back, in nanoseconds. */
  static Registry connect(RegistryConfig config, LongSupplier nanoTime) {
    List<String> urls = config.urls();
    String all = String.join(",", urls);
    if (all.startsWith("mock://")) {
      SchemaRegistryClient mock =
          MockSchemaRegistry.getClientForScope(
              all.substring("mock://".length()), List.of(new AvroSchemaProvider()));
      return new Registry(mock, null, urls, config.autoRegister(), nanoTime);
    }
    try {
      RestService rest = new RestService(urls);
      SchemaRegistryClient client =
          new CachedSchemaRegistryClient(
              rest, CACHED_SCHEMAS, List.of(new LimitedAvroProvider()), config.client(), Map.of());
      return new Registry(client, rest, urls, config.autoRegister(), nanoTime);
    } catch (LinkageError e) {
      throw new ConfigException(
          "the schema registry client "
              + "does not support these settings with this version of Kafka's client: "
              + e);
    }
  }

  /** Asks unless there has just been an outage; what it throws tells no secret. */
  private <T> T ask(Supplier<T> question) {
    try {
      return breaker.ask(question);
    } catch (BadRecordException | RegistryUnavailableException e) {
      throw secrets.hide(e);
    }
  }

  /**
   * The schema that a record was written with.
   *
   * @throws BadRecordException if the registry has no such schema, or it cannot be read safely
   * @throws RegistryUnavailableException if the registry gives no answer
   */
  Schema schema(SchemaRef ref) {
    synchronized (schemas) {
      Schema known = schemas.get(ref);
      if (known != null) {
        return known;
      }
    }
    Schema schema = ask(() -> fetch(ref));
    synchronized (schemas) {
      schemas.put(ref, schema);
    }
    return schema;
  }

  private Schema fetch(SchemaRef ref) {
    try {
      Schema schema =
          switch (ref) {
            case SchemaRef.Id id -> byId(id);
            case SchemaRef.Guid guid -> byGuid(guid);
          };
      SchemaLimits.check(schema);
      return schema;
    } catch (BadRecordException e) {
      throw new BadRecordException("the record names " + ref + ": " + e.getMessage(), e);
    } catch (StackOverflowError e) {
      throw new BadRecordException("the record names " + ref + ": its schema nests too deep", e);
    }
  }

  private Schema byId(SchemaRef.Id ref) {
    try {
      return avro(client.getSchemaById(ref.id()));
    } catch (RestClientException e) {
      if (blamesTheRecord(e)) {
        throw new BadRecordException("the registry at " + where + " has no such schema", e);
      }
      throw unavailable("looking up " + ref, e);
    } catch (IOException e) {
      // The client says so with a plain IOException, as it does for a lost connection.
      if (String.valueOf(e.getMessage()).startsWith("Invalid schema")) {
        throw new BadRecordException("its schema is not Avro", e);
      }
      throw unavailable("looking up " + ref, e);
    }
  }

  /**
   * Whether a registry answered that it has no such schema. Any other 404 is no registry's answer:
   * the address may be wrong, and that is not the record's fault.
   */
  static boolean blamesTheRecord(RestClientException e) {
    return e.getStatus() == NOT_FOUND
        && e.getErrorCode() >= SUBJECT_NOT_FOUND
        && e.getErrorCode() <= SCHEMA_NOT_FOUND;
  }

  private Schema byGuid(SchemaRef.Guid ref) {
    if (rest == null) {
      throw new BadRecordException("this registry client cannot look up GUIDs");
    }
    SchemaString found;
    try {
      found =
          rest.httpRequest(
              "/schemas/guids/" + ref.guid(),
              "GET",
              null,
              Map.of("Accept", "application/vnd.schemaregistry.v1+json"),
              new TypeReference<SchemaString>() {});
    } catch (RestClientException e) {
      if (e.getStatus() == NOT_FOUND) {
        throw new BadRecordException(
            "the registry at "
                + where
                + " has no such schema, or is one that cannot look up GUIDs: send the 4-byte id in"
                + " the record instead",
            e);
      }
      throw unavailable("looking up " + ref, e);
    } catch (IOException e) {
      throw unavailable("looking up " + ref, e);
    }
    String type = found.getSchemaType() == null ? AvroSchema.TYPE : found.getSchemaType();
    return avro(
        client
            .parseSchema(type, found.getSchemaString(), found.getReferences())
            .orElseThrow(() -> new BadRecordException("its schema is not Avro")));
  }

  private static Schema avro(ParsedSchema parsed) {
    if (parsed instanceof AvroSchema avro) {
      return avro.rawSchema();
    }
    throw new BadRecordException("its schema is not Avro but " + parsed.schemaType());
  }

  /**
   * The id of one of our schemas under a subject. Once known it is never asked for again, so a
   * registry that goes down later does no harm.
   *
   * @throws RegistryUnavailableException if the registry gives no answer or refuses the schema
   */
  int id(String subject, Schema schema) {
    SubjectAndSchema key = new SubjectAndSchema(subject, schema);
    Integer known = ids.get(key);
    if (known != null) {
      return known;
    }
    int id = ask(() -> fetchId(subject, schema));
    ids.put(key, id);
    return id;
  }

  private int fetchId(String subject, Schema schema) {
    try {
      AvroSchema parsed = new AvroSchema(schema);
      return autoRegister ? client.register(subject, parsed) : client.getId(subject, parsed);
    } catch (RestClientException e) {
      throw switch (e.getStatus()) {
        case CONFLICT, UNPROCESSABLE ->
            RegistryUnavailableException.refused(
                "the registry at "
                    + where
                    + " refuses the schema "
                    + schema.getFullName()
                    + " for the subject "
                    + subject
                    + ": "
                    + e.getMessage()
                    + ". It does not fit what the subject holds: give the topic another name, or"
                    + " remove the other schema",
                e);
        case NOT_FOUND ->
            RegistryUnavailableException.refused(
                "the registry at "
                    + where
                    + " does not have the schema "
                    + schema.getFullName()
                    + " under the subject "
                    + subject
                    + ": "
                    + e.getMessage()
                    + (autoRegister
                        ? ". Does " + RegistryConfig.URL + " end at the API's root?"
                        : ". Register it, or set " + RegistryConfig.AUTO_REGISTER + "=true"),
                e);
        default -> unavailable("asking for the id of " + subject, e);
      };
    } catch (IOException e) {
      throw unavailable("asking for the id of " + subject, e);
    }
  }

  private RegistryUnavailableException unavailable(String doing, Exception cause) {
    String hint = "";
    if (cause instanceof RestClientException e) {
      hint =
          switch (e.getStatus()) {
            case 401, 403 -> ". Check the credentials (basic.auth.user.info)";
            case NOT_FOUND -> ". Does " + RegistryConfig.URL + " end at the API's root?";
            default -> "";
          };
    }
    return new RegistryUnavailableException(
        "the schema registry at " + where + " failed while " + doing + ": " + cause + hint, cause);
  }

  /** Several serdes may share it; each closes it. */
  @Override
  public void close() throws IOException {
    if (!closed.getAndSet(true)) {
      client.close();
    }
  }
}
