package dev.millrace.topology.chaos;

import dev.millrace.schemas.PromptEvent;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.avro.Schema;
import org.apache.avro.Schema.Field;

/**
 * Later versions of the prompt's schema, as other programs may write them already: each has one
 * more text, of another name, at its end. For one thread.
 */
final class LaterSchema {
  private static final Pattern ID = Pattern.compile("\"id\"\\s*:\\s*(\\d+)");

  private final URI versions;
  private int made;

  LaterSchema(String registry, String topic) {
    this.versions = URI.create(registry + "/subjects/" + topic + "-value/versions");
  }

  /** Registers one that nobody has seen, and returns its id. */
  int register() throws InterruptedException {
    Schema ours = PromptEvent.getClassSchema();
    List<Field> fields = new ArrayList<>();
    for (Field field : ours.getFields()) {
      fields.add(new Field(field, field.schema()));
    }
    fields.add(new Field("later" + ++made, Schema.create(Schema.Type.STRING), null, ""));
    Schema later =
        Schema.createRecord(ours.getName(), ours.getDoc(), ours.getNamespace(), false, fields);
    String text = later.toString().replace("\\", "\\\\").replace("\"", "\\\"");
    try (HttpClient http = HttpClient.newHttpClient()) {
      HttpResponse<String> response =
          http.send(
              HttpRequest.newBuilder(versions)
                  .header("Content-Type", "application/vnd.schemaregistry.v1+json")
                  .POST(HttpRequest.BodyPublishers.ofString("{\"schema\": \"" + text + "\"}"))
                  .build(),
              HttpResponse.BodyHandlers.ofString());
      Matcher id = ID.matcher(response.body());
      if (!id.find()) {
        throw new IllegalStateException("the registry took no later schema: " + response.body());
      }
      return Integer.parseInt(id.group(1));
    } catch (IOException e) {
      throw new IllegalStateException("the registry took no later schema", e);
    }
  }
}
