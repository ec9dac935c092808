package dev.millrace.schemas;

import io.confluent.kafka.schemaregistry.avro.AvroSchema;
import io.confluent.kafka.schemaregistry.client.SchemaRegistryClient;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.generic.IndexedRecord;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.EncoderFactory;

/** Records as a producer that is not ours could write them. */
final class TestBytes {
  private TestBytes() {}

  /** Writes Avro by hand. */
  interface Body {
    void write(BinaryEncoder out) throws IOException;
  }

  static byte[] framed(SchemaRegistryClient registry, String subject, IndexedRecord record)
      throws Exception {
    int id = registry.register(subject, new AvroSchema(record.getSchema()));
    return framed(
        id, out -> new GenericDatumWriter<IndexedRecord>(record.getSchema()).write(record, out));
  }

  static byte[] framed(int id, Body body) throws IOException {
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    out.writeBytes(WireFormat.prefix(id));
    BinaryEncoder encoder = EncoderFactory.get().directBinaryEncoder(out, null);
    body.write(encoder);
    encoder.flush();
    return out.toByteArray();
  }

  static Schema withField(Schema record, String name, Schema type) {
    List<Schema.Field> fields = new ArrayList<>();
    for (Schema.Field field : record.getFields()) {
      fields.add(new Schema.Field(field, field.schema()));
    }
    fields.add(new Schema.Field(name, type));
    return Schema.createRecord(record.getName(), null, record.getNamespace(), false, fields);
  }
}
