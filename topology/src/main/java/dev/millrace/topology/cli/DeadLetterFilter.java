package dev.millrace.topology.cli;

import dev.millrace.topology.DeadLetter;
import dev.millrace.topology.DeadLetters;
import java.time.Duration;
import java.time.Instant;
import java.time.format.DateTimeParseException;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.ITypeConverter;
import picocli.CommandLine.Option;
import picocli.CommandLine.TypeConversionException;

/** Which dead letters a command is about; all that are given must hold. */
@SuppressWarnings("NullAway.Init")
final class DeadLetterFilter {
  @Option(
      names = "--reason",
      paramLabel = "REASON",
      split = ",",
      description = "Only these reasons: ${COMPLETION-CANDIDATES}.")
  private @Nullable Set<DeadLetters.Reason> reasons;

  @Option(names = "--id", paramLabel = "ID", description = "Only prompts with this id or key.")
  private @Nullable String id;

  @Option(
      names = "--since",
      paramLabel = "TIME",
      converter = Moment.class,
      description = "Not older: 2026-01-31T12:00:00Z, or how long ago: 30m, 12h, 7d.")
  private @Nullable Instant since;

  @Option(
      names = "--until",
      paramLabel = "TIME",
      converter = Moment.class,
      description = "Older than that.")
  private @Nullable Instant until;

  @Option(
      names = "--source-topic",
      paramLabel = "TOPIC",
      description = "Only prompts that were read from this topic.")
  private @Nullable String sourceTopic;

  @Option(
      names = "--source-partition",
      paramLabel = "N",
      description = "Only prompts that were read from this partition.")
  private @Nullable Integer sourcePartition;

  @Option(
      names = "--source-offsets",
      paramLabel = "FROM..TO",
      converter = Offsets.class,
      description = "Only prompts that were read from these offsets, both included.")
  private @Nullable Range offsets;

  @Option(
      names = "--at",
      paramLabel = "PARTITION@OFFSET",
      split = ",",
      converter = Place.At.class,
      description = "Only dead letters at these places of their own topic, as list shows them.")
  private @Nullable List<Place> places;

  @Option(
      names = "--limit",
      paramLabel = "N",
      description = "At most so many; 0: all (default: ${DEFAULT-VALUE}).")
  private int limit;

  /** Offsets, both ends included. */
  record Range(long from, long to) {}

  /** Where a dead letter stands on its topic. */
  record Place(int partition, long offset) {
    @Override
    public String toString() {
      return partition + "@" + offset;
    }

    /** Reads it as it is shown. */
    static final class At implements ITypeConverter<Place> {
      @Override
      public Place convert(String text) {
        String[] parts = text.split("@", -1);
        try {
          if (parts.length == 2) {
            return new Place(Integer.parseInt(parts[0]), Long.parseLong(parts[1]));
          }
        } catch (NumberFormatException e) {
          // Falls through: the message below fits both cases.
        }
        throw new TypeConversionException(
            "'" + text + "' is no place: it must be PARTITION@OFFSET, for example 0@17");
      }
    }
  }

  /** A point in time, or how long ago it is. */
  static final class Moment implements ITypeConverter<Instant> {
    @Override
    public Instant convert(String text) {
      try {
        String ago = text.toUpperCase(Locale.ROOT);
        return ago.matches("\\d+[SMH]")
            ? Instant.now().minus(Duration.parse("PT" + ago))
            : ago.matches("\\d+D")
                ? Instant.now().minus(Duration.parse("P" + ago))
                : Instant.parse(text);
      } catch (DateTimeParseException | ArithmeticException e) {
        throw new TypeConversionException(
            "'" + text + "' is no time: it must be as 2026-01-31T12:00:00Z, 30m, 12h or 7d");
      }
    }
  }

  /** A range of offsets, or one. */
  static final class Offsets implements ITypeConverter<Range> {
    @Override
    public Range convert(String text) {
      String[] parts = text.split("\\.\\.", -1);
      try {
        long from = Long.parseLong(parts[0]);
        long to = Long.parseLong(parts[parts.length - 1]);
        if (parts.length <= 2 && from <= to) {
          return new Range(from, to);
        }
      } catch (NumberFormatException e) {
        // Falls through: the message below fits both cases.
      }
      throw new TypeConversionException(
          "'" + text + "' is no range of offsets: it must be as 100..200, or 100");
    }
  }

  /** The one at this place. */
  static DeadLetterFilter only(Place place) {
    DeadLetterFilter filter = new DeadLetterFilter();
    filter.places = List.of(place);
    filter.limit = 1;
    return filter;
  }

  int limit() {
    return limit <= 0 ? Integer.MAX_VALUE : limit;
  }

  /** Milliseconds since 1970 before which nothing matches; -1: there is no such time. */
  long since() {
    return since == null ? -1 : since.toEpochMilli();
  }

  /** Partitions outside of which nothing matches; empty: any. */
  Set<Integer> partitions() {
    Set<Integer> found = new HashSet<>();
    if (places != null) {
      places.forEach(place -> found.add(place.partition()));
    }
    return found;
  }

  boolean matches(DeadLetter letter) {
    return (reasons == null || reasons.stream().anyMatch(r -> r.name().equals(letter.reason())))
        && (id == null || id.equals(letter.promptId()) || id.equals(Letters.key(letter)))
        && (since == null || letter.timestamp() >= since.toEpochMilli())
        && (until == null || letter.timestamp() < until.toEpochMilli())
        && (sourceTopic == null || sourceTopic.equals(letter.source()))
        && (sourcePartition == null || sourcePartition == letter.sourcePartition())
        && (offsets == null
            || (letter.sourceOffset() >= offsets.from() && letter.sourceOffset() <= offsets.to()))
        && (places == null || places.contains(new Place(letter.partition(), letter.offset())));
  }
}
