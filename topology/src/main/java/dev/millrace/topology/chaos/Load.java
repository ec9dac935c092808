package dev.millrace.topology.chaos;

import dev.millrace.inference.api.GenerateRequest;
import dev.millrace.inference.api.Message;
import dev.millrace.inference.api.Prompt;
import dev.millrace.inference.api.ResponseFormat;
import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.api.Scheduling;
import dev.millrace.inference.api.ToolChoice;
import dev.millrace.schemas.MessageRole;
import dev.millrace.schemas.PromptEvent;
import dev.millrace.schemas.PromptMessage;
import dev.millrace.schemas.PromptSampling;
import dev.millrace.topology.SyntheticGenerator;
import dev.millrace.topology.chaos.Planned.Kind;
import dev.millrace.topology.chaos.Planned.Poison;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/**
 * The prompts of a run: each is a function of seed and number. What a prompt must be answered with
 * is known beforehand, since the synthetic engine's tokens follow from prompt and seed.
 */
final class Load {
  /** Largest record that the workers take; small, so that too large ones are cheap. */
  static final int MAX_PROMPT_BYTES = 256 * 1024;

  private static final int LARGE_CHARACTERS = 150_000;
  private static final int SHORTEST = 20;
  private static final int LATEST_AGAIN_MS = 15_000;
  private static final int CLOSE_MS = 150;
  private static final Poison[] POISONS = Poison.values();

  private final ChaosOptions options;

  Load(ChaosOptions options) {
    this.options = options;
  }

  /** The prompt with that number of the steady flow. */
  Planned steady(int number) {
    SplittableRandom random = random(number);
    long at = (long) ((number + random.nextDouble()) * 1000 / options.rate());
    int draw = random.nextInt(100);
    Kind kind;
    if (draw < 55) {
      kind = Kind.PLAIN;
    } else if (draw < 75) {
      kind = Kind.STREAMED;
    } else if (draw < 83) {
      kind = Kind.CANCELLED;
    } else if (draw < 90) {
      kind = Kind.DEADLINE;
    } else if (draw < 95) {
      kind = Kind.TWICE;
    } else if (draw < 99) {
      kind = Kind.POISON;
    } else {
      kind = Kind.LARGE;
    }
    return plan(number, kind, at, random);
  }

  /** A prompt that a fault brings with it: sent twice at once, or cancelled when it is done. */
  Planned extra(int number, Kind kind, long atMs) {
    SplittableRandom random = random(number);
    Planned plan = plan(number, kind, atMs, random);
    int tokens = plan.event().getSampling().getMaxTokens();
    long doneMs = (long) (tokens * 1000 / options.tokensPerSecond());
    return new Planned(
        number,
        kind,
        plan.event(),
        atMs,
        kind == Kind.CANCELLED ? atMs + doneMs + random.nextInt(CLOSE_MS) - CLOSE_MS / 3 : 0,
        0,
        kind == Kind.TWICE ? atMs + random.nextInt(CLOSE_MS) : 0,
        null,
        0);
  }

  /** A prompt in a later version of the schema, whose one more text at the end is empty. */
  Planned later(int number, int schema, long atMs) {
    Planned plan = plan(number, Kind.PLAIN, atMs, random(number));
    return new Planned(number, Kind.PLAIN, plan.event(), atMs, 0, 0, 0, null, schema);
  }

  private SplittableRandom random(int number) {
    return new SplittableRandom(options.seed() * 0x9E3779B97F4A7C15L + number);
  }

  private Planned plan(int number, Kind kind, long at, SplittableRandom random) {
    int tokens = random.nextInt(Math.min(SHORTEST, options.longest() - 1), options.longest());
    long takesMs = (long) (tokens * 1000 / options.tokensPerSecond());
    boolean stream = kind == Kind.STREAMED || (kind == Kind.CANCELLED && random.nextInt(2) == 0);
    String text = "question " + number;
    long cancelAt = 0;
    long deadline = 0;
    long again = 0;
    Poison poison = null;
    switch (kind) {
      // From a little before the prompt itself to a little after its completion, and often at it.
      case CANCELLED ->
          cancelAt =
              at
                  + (random.nextInt(3) == 0
                      ? takesMs + random.nextInt(200) - 60
                      : random.nextLong(takesMs + 300) - 100);
      case DEADLINE -> deadline = at + random.nextLong(takesMs * 13 / 10 + 1_000) - 500;
      case TWICE -> again = at + random.nextInt(LATEST_AGAIN_MS);
      case LARGE -> text = text + " of many " + "words ".repeat(LARGE_CHARACTERS / 6);
      case POISON -> {
        poison = POISONS[random.nextInt(POISONS.length)];
        if (poison == Poison.OVERSIZED) {
          text = text + "x".repeat(MAX_PROMPT_BYTES);
        }
      }
      case PLAIN, STREAMED -> {
        // Nothing but its text.
      }
    }
    PromptEvent event =
        PromptEvent.newBuilder()
            .setId(Planned.id(number))
            .setModel(poison == Poison.OTHER_MODEL ? "another" : "")
            .setMessages(poison == Poison.NOTHING_ASKED ? List.of() : List.of(user(text)))
            .setSampling(
                PromptSampling.newBuilder()
                    .setMaxTokens(tokens)
                    .setSeed((long) random.nextInt())
                    .build())
            .setStream(stream)
            .build();
    return new Planned(number, kind, event, at, cancelAt, deadline, again, poison, 0);
  }

  private static PromptMessage user(String text) {
    return PromptMessage.newBuilder().setRole(MessageRole.USER).setContent(text).build();
  }

  /** The same id with another text: an answer to it would show. */
  static PromptEvent again(Planned prompt) {
    return PromptEvent.newBuilder(prompt.event())
        .setMessages(List.of(user("another question with the id " + prompt.id())))
        .build();
  }

  /**
   * The record's value, spoiled where it is to be.
   *
   * @param serializer makes the bytes of an event
   */
  static byte @Nullable [] bytes(Planned prompt, Function<PromptEvent, byte[]> serializer) {
    byte[] good = serializer.apply(prompt.event());
    Poison poison = prompt.poison();
    if (prompt.schema() != 0) {
      return ByteBuffer.wrap(Arrays.copyOf(good, good.length + 1))
          .putInt(1, prompt.schema())
          .array();
    }
    if (poison == null) {
      return good;
    }
    return switch (poison) {
      case GARBAGE -> new byte[] {1, 2, 3};
      case EMPTY -> new byte[0];
      case NO_VALUE -> null;
      case WRONG_MAGIC -> {
        good[0] = 7;
        yield good;
      }
      case UNKNOWN_SCHEMA -> ByteBuffer.wrap(good).putInt(1, 99_999_999).array();
      case CUT_OFF -> Arrays.copyOf(good, good.length / 2);
      case TRAILING_BYTES -> Arrays.copyOf(good, good.length + 3);
      case NOTHING_ASKED, OTHER_MODEL, OVERSIZED -> good;
    };
  }

  /** What the engine says to a prompt that nothing disturbs. */
  static String answer(Planned prompt) {
    PromptEvent event = prompt.event();
    return SyntheticGenerator.answer(
        new GenerateRequest(
            event.getId(),
            new Prompt.Chat(
                List.of(
                    Message.of(Message.Role.USER, event.getMessages().getFirst().getContent()))),
            List.of(),
            ToolChoice.AUTO,
            ResponseFormat.TEXT,
            new SamplingParams(
                0,
                1,
                0,
                0,
                1,
                0,
                0,
                event.getSampling().getSeed(),
                event.getSampling().getMaxTokens(),
                0,
                List.of(),
                false,
                -1),
            null,
            "",
            Scheduling.ANY,
            new int[0]));
  }
}
