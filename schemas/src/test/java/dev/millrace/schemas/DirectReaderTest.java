package dev.millrace.schemas;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.apache.avro.Schema;
import org.apache.avro.specific.SpecificDatumWriter;
import org.apache.avro.specific.SpecificRecord;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** The reader of events that are laid out as ours are, beside the one that reads any. */
class DirectReaderTest {
  private static final Schema PROMPT = PromptEvent.getClassSchema();

  /** Reads, or says why not. */
  private interface Reading {
    Object read(BoundedDecoder in, Allowance memory) throws IOException;
  }

  private static DirectReader direct(Schema schema) {
    DirectReader reader = DirectReader.of(schema, schema);
    assertThat(reader).isNotNull();
    return reader;
  }

  private static byte[] bytes(SpecificRecord event) throws IOException {
    return TestBytes.framed(
        0,
        out ->
            new SpecificDatumWriter<SpecificRecord>(event.getSchema(), EventTypes.data())
                .write(event, out));
  }

  /** The event and where it ends; null if there is none. */
  private static @Nullable List<Object> read(byte[] bytes, Reading reading) {
    BoundedDecoder in = new BoundedDecoder(bytes, 5);
    try {
      return List.of(reading.read(in, new Allowance(in.left())), in.left());
    } catch (IOException | RuntimeException e) {
      return null;
    }
  }

  static Stream<SpecificRecord> events() {
    CompletionEvent completion =
        CompletionEvent.newBuilder()
            .setPromptId("p-1")
            .setAttempt(2)
            .setFinishReason(CompletionFinish.TOOL_CALLS)
            .setContent("Grüße")
            .setToolCalls(List.of(new CompletionToolCall("c", 0, "add", "{}", true, null)))
            .setLogprobs(
                List.of(new CompletionLogprob(7, -1f, List.of(new CompletionTopLogprob(5, -0.5f)))))
            .build();
    return Stream.of(
        Events.prompt(),
        PromptEvent.newBuilder().setPrompt("Once").build(),
        completion,
        CancelEvent.newBuilder().setPromptId("p-1").build());
  }

  @ParameterizedTest
  @MethodSource("events")
  void shouldReadWhatTheOtherReads(SpecificRecord event) throws IOException {
    Schema schema = event.getSchema();
    byte[] bytes = bytes(event);
    DirectReader direct = direct(schema);
    Reading other = (in, memory) -> new BoundedReader<>(schema, schema, memory).read(null, in);
    assertThat(read(bytes, direct::read)).isEqualTo(List.of(event, 0));
    for (long seed = 0; seed < 5_000; seed++) {
      SplittableRandom random = new SplittableRandom(seed);
      byte[] changed = bytes.clone();
      for (int n = random.nextInt(1, 4); n > 0; n--) {
        changed[random.nextInt(5, changed.length)] = (byte) random.nextInt(-4, 12);
      }
      assertThat(read(changed, direct::read)).as("seed %d", seed).isEqualTo(read(changed, other));
    }
  }

  @Test
  void shouldReadWhatIsLaidOutAlikeWhateverElseItsSchemaSays() {
    Schema bare = new Schema.Parser().parse(without(PROMPT.toString()));
    assertThat(bare).isNotEqualTo(PROMPT);
    assertThat(DirectReader.of(bare, PROMPT)).isNotNull();
  }

  /** Without what tells Java alone how to show a string. */
  private static String without(String schema) {
    return schema.replace("{\"type\":\"string\",\"avro.java.string\":\"String\"}", "\"string\"");
  }

  static Stream<Schema> otherLayouts() {
    String text = PROMPT.toString();
    List<Schema.Field> turned = new ArrayList<>();
    PROMPT.getFields().reversed().forEach(f -> turned.add(new Schema.Field(f, f.schema())));
    return Stream.of(
        TestBytes.withField(PROMPT, "more", Schema.create(Schema.Type.INT)),
        Schema.createRecord("PromptEvent", null, PROMPT.getNamespace(), false, turned),
        new Schema.Parser().parse(text.replace("\"prefill\"", "\"begin\"")),
        new Schema.Parser().parse(text.replace("\"MessageRole\"", "\"OtherRole\"")),
        new Schema.Parser().parse(text.replace("\"PromptMessage\"", "\"OtherMessage\"")),
        new Schema.Parser().parse(text.replace("\"SYSTEM\",\"USER\"", "\"USER\",\"SYSTEM\"")),
        new Schema.Parser()
            .parse(
                text.replace(
                    "\"name\":\"priority\",\"type\":\"int\"",
                    "\"name\":\"priority\",\"type\":\"long\"")),
        new Schema.Parser().parse(text.replace("[\"null\",\"boolean\"]", "[\"null\",\"int\"]")));
  }

  @ParameterizedTest
  @MethodSource("otherLayouts")
  void shouldLeaveOtherLayoutsToTheOther(Schema writer) {
    assertThat(writer).isNotEqualTo(PROMPT);
    assertThat(DirectReader.of(writer, PROMPT)).isNull();
  }

  @Test
  void shouldRefuseMorePartsThanTheRecordMayTakeMemoryFor() throws IOException {
    Schema messages = PROMPT.getField("messages").schema();
    Schema metadata = PROMPT.getField("metadata").schema();
    Schema stop = PromptSampling.getClassSchema().getField("stop").schema();
    // So many that each kind of part counts: without one of them it would fit.
    assertTooMany(messages, 400_000, 5);
    assertTooMany(metadata, 350_000, 2);
    assertTooMany(stop, 900_000, 1);
  }

  /** So many items of so many zeros. */
  private static void assertTooMany(Schema schema, int count, int itemBytes) throws IOException {
    byte[] bytes =
        TestBytes.framed(
            0,
            out -> {
              out.writeLong(count);
              out.writeFixed(new byte[count * itemBytes]);
              out.writeLong(0);
            });
    BoundedDecoder in = new BoundedDecoder(bytes, 5);
    assertThatThrownBy(() -> direct(schema).read(in, new Allowance(in.left())))
        .hasMessageContaining("too many small parts");
  }
}
