package dev.millrace.topology.cli;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.millrace.schemas.AvroDeserializer;
import dev.millrace.topology.DeadLetter;
import dev.millrace.topology.Printable;
import dev.millrace.topology.WorkerConfig;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.apache.avro.specific.SpecificRecord;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.header.Header;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code millrace dead-letters}. */
@Command(
    name = "dead-letters",
    description = "Prompts that could not be answered: what became of them, and another try.",
    synopsisSubcommandLabel = "COMMAND")
@SuppressWarnings("NullAway.Init")
public final class DeadLettersCommand {
  @Spec private CommandSpec spec;

  @Command(name = "list", description = "Shows dead letters, a line each, oldest first.")
  int list(
      @Mixin ConfigOption config,
      @Mixin DeadLetterFilter filter,
      @Option(names = "--pending", description = "Only those that were not replayed.")
          boolean pending,
      @Option(names = "--json", description = "A line of JSON each.") boolean json) {
    PrintWriter out = spec.commandLine().getOut();
    int[] count = {0};
    Logs.errorsOnly();
    try (DeadLetterTopic topic = new DeadLetterTopic(config.load())) {
      topic.readMarks(filter);
      topic.each(
          filter,
          (letter, replayed) -> {
            if (pending && replayed) {
              return false;
            }
            count[0]++;
            out.println(json ? Letters.json(letter, replayed) : Letters.line(letter, replayed));
            return true;
          },
          out::flush);
    }
    if (!json) {
      out.println(count[0] + (count[0] == 1 ? " dead letter" : " dead letters"));
    }
    out.flush();
    return 0;
  }

  @Command(
      name = "show",
      description = "Shows everything about one dead letter, the prompt itself included.")
  int show(
      @Mixin ConfigOption config,
      @Parameters(
              paramLabel = "PARTITION@OFFSET",
              converter = DeadLetterFilter.Place.At.class,
              description = "Where it is, as list shows it.")
          DeadLetterFilter.Place place,
      @Option(
              names = "--value",
              paramLabel = "FILE",
              description = "Writes the prompt's bytes into this file.")
          @Nullable Path file,
      @Option(names = "--json", description = "As JSON.") boolean json)
      throws IOException {
    Logs.errorsOnly();
    WorkerConfig settings = config.load();
    DeadLetterFilter filter = DeadLetterFilter.only(place);
    List<DeadLetter> found = new ArrayList<>();
    boolean[] replayed = {false};
    try (DeadLetterTopic topic = new DeadLetterTopic(settings)) {
      topic.readMarks(filter);
      topic.each(
          filter,
          (letter, again) -> {
            replayed[0] = again;
            return found.add(letter);
          },
          () -> {});
    }
    if (found.isEmpty()) {
      throw new Failures.CommandFailedException(
          "there is no dead letter at %s of %s".formatted(place, settings.topics().deadLetters()));
    }
    DeadLetter letter = found.getFirst();
    byte[] value = letter.value();
    if (file != null) {
      if (value == null) {
        throw new Failures.CommandFailedException(
            "the dead letter at " + place + " has no value to write to " + file);
      }
      Files.write(file, value);
    }
    PrintWriter out = spec.commandLine().getOut();
    if (json) {
      ObjectNode node = Letters.json(letter, replayed[0]);
      node.put("stacktrace", letter.stacktrace());
      Letters.addHeaders(node, letter);
      node.put("value", value(settings, letter));
      out.println(node);
    } else {
      print(out, letter, replayed[0]);
      out.println("value      " + value(settings, letter));
    }
    out.flush();
    return 0;
  }

  private static void print(PrintWriter out, DeadLetter letter, boolean replayed) {
    out.println(Letters.line(letter, replayed));
    out.println("message    " + printable(letter.message()));
    out.println("exception  " + printable(letter.exception()));
    letter.stacktrace().lines().forEach(line -> out.println("           " + printable(line)));
    out.println("key        " + printable(Letters.key(letter)));
    for (Header header : letter.headers()) {
      out.println(
          "header     "
              + printable(header.key())
              + " = "
              + printable(Letters.text(header.value())));
    }
  }

  /** The whole text on one line, without what a terminal would obey. */
  private static String printable(String text) {
    return Printable.line(text);
  }

  /** The prompt as text where it can be read, else its first bytes. */
  private static String value(WorkerConfig settings, DeadLetter letter) {
    byte[] value = letter.value();
    if (letter.omitted() >= 0) {
      return "not kept: the record of %d bytes was too large for the dead letters' topic"
          .formatted(letter.omitted());
    }
    if (value == null) {
      return "none";
    }
    try (AvroDeserializer<SpecificRecord> reader = new AvroDeserializer<>()) {
      reader.configure(settings.serdeSettings(), false);
      SpecificRecord event =
          reader.deserialize(letter.source(), letter.original("", 0).headers(), value);
      return printable(String.valueOf(event));
    } catch (SerializationException | org.apache.kafka.common.config.ConfigException e) {
      return Letters.hex(value) + " (no prompt: " + printable(String.valueOf(e.getMessage())) + ")";
    }
  }

  @Command(
      name = "replay",
      description = {
        "Sends dead letters back to the topic that they were read from: key, value and headers as",
        "they came. Each is marked on the dead letters' topic and not sent again without --again.",
        "A command that is cut off may send up to 64 records a second time when it is repeated;",
        "a prompt that was answered meanwhile is not answered again."
      })
  int replay(
      @Mixin ConfigOption config,
      @Mixin DeadLetterFilter filter,
      @Option(
              names = "--to",
              paramLabel = "TOPIC",
              description = "Sends them to this topic instead.")
          @Nullable String to,
      @Option(names = "--dry-run", description = "Shows what would be sent, and sends nothing.")
          boolean dryRun,
      @Option(names = "--again", description = "Those that were replayed before, too.")
          boolean again,
      @Option(names = "--json", description = "A line of JSON for each.") boolean json) {
    Logs.errorsOnly();
    PrintWriter out = spec.commandLine().getOut();
    PrintWriter err = spec.commandLine().getErr();
    WorkerConfig settings = config.load();
    try (DeadLetterTopic topic = new DeadLetterTopic(settings);
        Replay replay = new Replay(settings, new Replay.Way(to, dryRun, again, json), out, err)) {
      topic.readMarks(filter);
      topic.each(filter, replay::take, replay::flush);
      replay.flush();
      return replay.summary();
    }
  }
}
