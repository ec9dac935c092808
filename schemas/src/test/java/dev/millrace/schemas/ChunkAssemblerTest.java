package dev.millrace.schemas;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.millrace.schemas.ChunkAssembler.Kind;
import dev.millrace.schemas.ChunkAssembler.Limits;
import dev.millrace.schemas.ChunkAssembler.Update;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Answers from their chunks, however these come. */
class ChunkAssemblerTest {
  private static final Limits WIDE = new Limits(100, 1_000_000, Duration.ofMinutes(1));

  private final AtomicLong nanos = new AtomicLong(5);
  private final ChunkAssembler assembler = new ChunkAssembler(WIDE, nanos::get);

  private static ChunkEvent chunk(String id, int attempt, int sequence, String content) {
    return ChunkEvent.newBuilder()
        .setPromptId(id)
        .setAttempt(attempt)
        .setSequence(sequence)
        .setContent(content)
        .build();
  }

  private static CompletionEvent completion(String id, int attempt, String content) {
    return CompletionEvent.newBuilder()
        .setPromptId(id)
        .setAttempt(attempt)
        .setContent(content)
        .build();
  }

  /** What a reader shows that does as it is told. */
  private static final class Shown {
    private final Map<String, String> texts = new HashMap<>();

    void apply(Update update) {
      if (update.restart()) {
        texts.remove(update.promptId());
      }
      texts.merge(update.promptId(), update.content(), String::concat);
    }
  }

  @Test
  void shouldHandOutWhatIsNew() {
    assertThat(assembler.add(chunk("p", 1, 0, "a")))
        .isEqualTo(new Update("p", Kind.MORE, 1, true, "a", ""));
    assertThat(assembler.add(chunk("p", 1, 1, "b")))
        .isEqualTo(new Update("p", Kind.MORE, 1, false, "b", ""));
    assertThat(assembler.complete(completion("p", 1, "abc")))
        .isEqualTo(new Update("p", Kind.END, 1, false, "c", ""));
  }

  @Test
  void shouldTellReasoningFromTheAnswer() {
    ChunkEvent thought =
        ChunkEvent.newBuilder().setPromptId("p").setAttempt(1).setReasoning("hm").build();
    assertThat(assembler.add(thought).reasoning()).isEqualTo("hm");
    CompletionEvent completion =
        CompletionEvent.newBuilder()
            .setPromptId("p")
            .setAttempt(1)
            .setReasoning("hmm")
            .setContent("4")
            .build();
    Update end = assembler.complete(completion);
    assertThat(end.reasoning()).isEqualTo("m");
    assertThat(end.content()).isEqualTo("4");
    assertThat(end.restart()).isFalse();
  }

  @Test
  void shouldDropAChunkThatCameBefore() {
    assembler.add(chunk("p", 1, 0, "a"));
    assembler.add(chunk("p", 1, 1, "b"));
    assertThat(assembler.add(chunk("p", 1, 0, "a")).kind()).isEqualTo(Kind.NOTHING);
    assertThat(assembler.add(chunk("p", 1, 1, "b")).content()).isEmpty();
    assertThat(assembler.complete(completion("p", 1, "ab")).content()).isEmpty();
  }

  @Test
  void shouldBeginAnewWithALaterAttemptAndDropTheLostOne() {
    assembler.add(chunk("p", 1, 0, "a"));
    assertThat(assembler.add(chunk("p", 2, 0, "x")))
        .isEqualTo(new Update("p", Kind.MORE, 2, true, "x", ""));
    assertThat(assembler.add(chunk("p", 1, 1, "b")).kind()).isEqualTo(Kind.NOTHING);
    assertThat(assembler.complete(completion("p", 2, "xy")).content()).isEqualTo("y");
  }

  @Test
  void shouldNoticeAGapAndWaitForTheCompletion() {
    assembler.add(chunk("p", 1, 0, "a"));
    assertThat(assembler.add(chunk("p", 1, 2, "c")).kind()).isEqualTo(Kind.GAP);
    assertThat(assembler.add(chunk("p", 1, 3, "d")).kind()).isEqualTo(Kind.NOTHING);
    assertThat(assembler.complete(completion("p", 1, "abcd")))
        .isEqualTo(new Update("p", Kind.END, 1, true, "abcd", ""));
  }

  @Test
  void shouldNoticeThatItBeganInTheMiddle() {
    assertThat(assembler.add(chunk("p", 1, 4, "e")).kind()).isEqualTo(Kind.GAP);
    assertThat(assembler.add(chunk("p", 2, 0, "a")).kind()).isEqualTo(Kind.MORE);
  }

  @Test
  void shouldTakeTheCompletionsWordOverThatOfAnotherAttempt() {
    assembler.add(chunk("p", 3, 0, "of a worker that was cut off"));
    assertThat(assembler.complete(completion("p", 2, "abc")))
        .isEqualTo(new Update("p", Kind.END, 2, true, "abc", ""));
  }

  @Test
  void shouldSayNothingOfWhatComesAfterTheEnd() {
    assembler.add(chunk("p", 1, 0, "a"));
    assembler.complete(completion("p", 1, "ab"));
    assertThat(assembler.add(chunk("p", 1, 1, "b")).kind()).isEqualTo(Kind.NOTHING);
    assertThat(assembler.complete(completion("p", 1, "ab")).kind()).isEqualTo(Kind.NOTHING);
    assertThat(assembler.characters()).isZero();
  }

  @Test
  void shouldForgetAPromptThatEndsAsADeadLetter() {
    assembler.add(chunk("p", 1, 0, "a"));
    assembler.end("p");
    assertThat(assembler.add(chunk("p", 1, 1, "b")).kind()).isEqualTo(Kind.NOTHING);
    assertThat(assembler.characters()).isZero();
  }

  @Test
  void shouldShowTheAnswerToADeadLetterThatWasReplayed() {
    assembler.add(chunk("p", 1, 0, "a"));
    assembler.end("p");
    assertThat(assembler.add(chunk("p", 1, 1, "b")).kind()).as("late").isEqualTo(Kind.NOTHING);
    assertThat(assembler.complete(completion("p", 1, "abc")))
        .isEqualTo(new Update("p", Kind.END, 1, true, "abc", ""));
    assertThat(assembler.complete(completion("p", 1, "abc")).kind()).isEqualTo(Kind.NOTHING);
    assembler.end("p");
    assertThat(assembler.complete(completion("p", 1, "abc")).kind())
        .as("a dead letter after the answer changes nothing")
        .isEqualTo(Kind.NOTHING);
  }

  @Test
  void shouldGoOnWithANewerAttemptAfterADeadLetter() {
    assembler.add(chunk("p", 1, 0, "a"));
    assembler.end("p");
    assertThat(assembler.add(chunk("p", 2, 0, "x")))
        .isEqualTo(new Update("p", Kind.MORE, 2, true, "x", ""));
    assertThat(assembler.complete(completion("p", 2, "xy")))
        .isEqualTo(new Update("p", Kind.END, 2, false, "y", ""));
  }

  @Test
  void shouldDropTheChunksOfADeadLetterThatCameBeforeThem() {
    assembler.end("p");
    assertThat(assembler.add(chunk("p", 1, 0, "a")).kind()).isEqualTo(Kind.NOTHING);
    assertThat(assembler.add(chunk("p", 1, 1, "b")).kind()).isEqualTo(Kind.NOTHING);
    assertThat(assembler.add(chunk("p", 2, 0, "x")).kind()).isEqualTo(Kind.MORE);
  }

  @Test
  void shouldNotCountADeadLetterAsForgotten() {
    assembler.end("p");
    nanos.addAndGet(WIDE.idle().toNanos() + 1);
    assembler.add(chunk("q", 1, 0, "a"));
    assertThat(assembler.forgotten()).isZero();
  }

  @Test
  void shouldKeepNoMoreAnswersThanItIsAllowed() {
    for (int i = 0; i < 1_000; i++) {
      assembler.add(chunk("p" + i, 1, 0, "text"));
    }
    assertThat(assembler.size()).isEqualTo(WIDE.prompts());
    assertThat(assembler.characters()).isEqualTo(4L * WIDE.prompts());
    assertThat(assembler.forgotten()).isEqualTo(900);
    assertThat(assembler.complete(completion("p0", 1, "textual")))
        .as("forgotten, so all of it anew")
        .isEqualTo(new Update("p0", Kind.END, 1, true, "textual", ""));
  }

  @Test
  void shouldKeepNoMoreTextThanItIsAllowed() {
    ChunkAssembler small =
        new ChunkAssembler(new Limits(100, 10, Duration.ofMinutes(1)), nanos::get);
    small.add(chunk("old", 1, 0, "12345"));
    small.add(chunk("new", 1, 0, "123456"));
    assertThat(small.characters()).isEqualTo(6);
    assertThat(small.add(chunk("old", 1, 1, "6")).kind()).isEqualTo(Kind.NOTHING);
    assertThat(small.add(chunk("new", 1, 1, "7")).kind()).isEqualTo(Kind.MORE);
    assertThat(small.add(chunk("huge", 1, 0, "x".repeat(11))).content()).hasSize(11);
    assertThat(small.characters()).as("not even one answer alone").isZero();
    assertThat(small.complete(completion("huge", 1, "x".repeat(12))).content()).hasSize(12);
  }

  @Test
  void shouldForgetAnAnswerOfWhichNothingComes() {
    assembler.add(chunk("p", 1, 0, "a"));
    nanos.addAndGet(WIDE.idle().toNanos() + 1);
    assembler.add(chunk("q", 1, 0, "a"));
    assertThat(assembler.size()).isEqualTo(1);
    assertThat(assembler.forgotten()).isEqualTo(1);
  }

  @Test
  void shouldRefuseALimitOfZero() {
    assertThatThrownBy(() -> new Limits(0, 1, Duration.ofSeconds(1)))
        .isInstanceOf(IllegalArgumentException.class);
  }

  /** Duplicates, lost attempts, losses, and a completion that comes at any time. */
  @ParameterizedTest
  @ValueSource(longs = {1, 2, 3, 4, 5, 6, 7, 8})
  void shouldAlwaysEndWithWhatTheCompletionSays(long seed) {
    Random random = new Random(seed);
    ChunkAssembler tight = new ChunkAssembler(new Limits(8, 60, Duration.ofMinutes(1)), nanos::get);
    Shown shown = new Shown();
    List<List<Object>> queues = new ArrayList<>();
    for (int p = 0; p < 12; p++) {
      List<Object> events = new ArrayList<>();
      for (int attempt = 1; attempt <= 1 + random.nextInt(3); attempt++) {
        for (int i = 0; i < 6; i++) {
          for (int copies = random.nextInt(10) == 0 ? random.nextInt(3) : 1; copies > 0; copies--) {
            events.add(chunk("p" + p, attempt, i, "p" + p + "-" + i + " "));
          }
        }
      }
      events.add(
          events.size() - random.nextInt(3),
          completion("p" + p, 1 + random.nextInt(3), "p" + p + "-0 p" + p + "-1 the end"));
      queues.add(events);
    }
    while (!queues.isEmpty()) {
      Collections.shuffle(queues, random);
      Object event = queues.getLast().removeFirst();
      shown.apply(
          event instanceof ChunkEvent chunk
              ? tight.add(chunk)
              : tight.complete((CompletionEvent) event));
      if (event instanceof CompletionEvent completion) {
        assertThat(shown.texts.get(completion.getPromptId()))
            .as("seed %d", seed)
            .isEqualTo(completion.getContent());
      }
      queues.removeIf(List::isEmpty);
      assertThat(tight.characters()).as("seed %d", seed).isLessThanOrEqualTo(60);
      assertThat(tight.size()).as("seed %d", seed).isLessThanOrEqualTo(8);
    }
  }
}
