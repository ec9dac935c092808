package dev.millrace.topology;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.api.FinishReason;
import dev.millrace.inference.api.GenerateEvent.Failure;
import dev.millrace.inference.api.GenerateEvent.ToolCall;
import dev.millrace.inference.api.Prompt;
import dev.millrace.schemas.ChunkEvent;
import dev.millrace.schemas.CompletionEvent;
import dev.millrace.schemas.CompletionFinish;
import dev.millrace.schemas.ToolCallEvent;
import dev.millrace.topology.ScriptedGenerator.Submission;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.stream.IntStream;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.test.TestRecord;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** The way of a prompt that goes well, and how it is kept until it has gone well. */
class PromptProcessorTest {
  private Harness harness = new Harness();

  @AfterEach
  void close() {
    harness.close();
  }

  @Test
  void shouldAnswerAPrompt() {
    harness.send(Harness.prompt("p1").setMetadata(Map.of("tenant", "a")).build());
    harness.generator.last().done("4");
    harness.tick();

    List<TestRecord<byte[], CompletionEvent>> sent = harness.completions();
    assertThat(sent).hasSize(1);
    assertThat(sent.getFirst().key()).isEqualTo("p1".getBytes(UTF_8));
    CompletionEvent completion = sent.getFirst().value();
    assertThat(completion.getPromptId()).isEqualTo("p1");
    assertThat(completion.getContent()).isEqualTo("4");
    assertThat(completion.getReasoning()).isEqualTo("because");
    assertThat(completion.getFinishReason()).isEqualTo(CompletionFinish.STOP);
    assertThat(completion.getAttempt()).isEqualTo(1);
    assertThat(completion.getModel()).isEqualTo(ScriptedGenerator.MODEL);
    assertThat(completion.getSeed()).isEqualTo(EventMapper.seedOf(SeenIds.Hash.of("p1")));
    assertThat(completion.getMetadata()).containsEntry("tenant", "a");
    assertThat(completion.getSource().getTopic()).isEqualTo("millrace.prompts");
    assertThat(completion.getSource().getOffset()).isZero();
    assertThat(completion.getUsage().getTotal()).isEqualTo(12);
    assertThat(completion.getTimes().getTotalMs()).isEqualTo(9);
  }

  @Test
  void shouldCarryTheTraceContextAndNothingElse() {
    harness.send(
        null,
        harness.bytes(Harness.prompt("p1").build()),
        Map.of("traceparent", "00-abc", "secret", "x"));
    harness.generator.last().done("4");
    harness.tick();

    TestRecord<byte[], CompletionEvent> sent = harness.completions().getFirst();
    assertThat(sent.headers().lastHeader("traceparent").value())
        .isEqualTo("00-abc".getBytes(UTF_8));
    assertThat(sent.headers().lastHeader("secret")).isNull();
    assertThat(sent.key()).as("a prompt without a key").isEqualTo("p1".getBytes(UTF_8));
  }

  @Test
  void shouldSendOneEventForEachToolCall() {
    harness.send(Harness.prompt("p1").build());
    harness
        .generator
        .last()
        .done(
            FinishReason.TOOL_CALLS,
            "",
            new ToolCall(0, "add", "{\"a\":1}", null),
            new ToolCall(1, "mul", "{}", "a is missing"));
    harness.tick();

    List<TestRecord<byte[], ToolCallEvent>> calls = harness.toolCalls();
    assertThat(calls).hasSize(2);
    assertThat(calls.get(0).value().getCallId()).isEqualTo(EventMapper.callId("p1", 0));
    assertThat(calls.get(0).value().getValid()).isTrue();
    assertThat(calls.get(1).value().getValid()).isFalse();
    assertThat(calls.get(1).value().getProblem()).isEqualTo("a is missing");
    CompletionEvent completion = harness.completions().getFirst().value();
    assertThat(completion.getToolCalls())
        .extracting("callId")
        .containsExactly(EventMapper.callId("p1", 0), EventMapper.callId("p1", 1));
  }

  @Test
  void shouldKeepThePromptUntilALaterCommitProvedItsCompletionAcknowledged() {
    harness.send(Harness.prompt("p1").build());
    harness.tick();
    harness.changelog(InFlightStore.PROMPTS);

    harness.generator.last().done("4");
    harness.tick();
    assertThat(harness.completions()).hasSize(1);
    assertThat(harness.changelog(InFlightStore.PROMPTS)).as("no tombstone yet").isEmpty();
    assertThat(harness.changelog(InFlightStore.PROGRESS)).as("the outcome is kept").hasSize(1);
    assertThat(harness.gate.kept()).isEqualTo(1);

    harness.tick();
    assertThat(harness.changelog(InFlightStore.PROMPTS))
        .extracting(TestRecord::value)
        .containsExactly((byte[]) null);
    assertThat(harness.stored(InFlightStore.PROMPTS)).isZero();
    assertThat(harness.stored(InFlightStore.PROGRESS)).isZero();
    assertThat(harness.gate.kept()).isZero();
  }

  @Test
  void shouldNotRememberAnAnsweredIdBeforeItsCompletionIsAcknowledged() {
    harness.send(Harness.prompt("p1").build());
    harness.generator.last().done("4");
    harness.tick();
    assertThat(harness.stored(InFlightStore.SEEN)).isZero();
    harness.tick();
    assertThat(harness.stored(InFlightStore.SEEN)).isEqualTo(1);
  }

  @Test
  void shouldDeleteWithTheAnswerInOneTransactionUnderExactlyOnce() {
    harness.close();
    harness = new Harness("kafka.processing.guarantee", "exactly_once_v2");
    harness.send(Harness.prompt("p1").build());
    assertThat(harness.stored(InFlightStore.PROMPTS)).isEqualTo(1);
    harness.generator.last().done("4");
    harness.tick();
    assertThat(harness.completions()).hasSize(1);
    assertThat(harness.stored(InFlightStore.PROMPTS)).isZero();
    assertThat(harness.stored(InFlightStore.SEEN)).isEqualTo(1);
  }

  @Test
  void shouldResubmitARestoredPromptWithItsSavedTokens() {
    harness.close();
    harness = new Harness("progress.save.tokens", "3");
    harness.send(Harness.prompt("p1").build());
    harness.generator.last().delta("a b c", 1, 200, 70_000);
    harness.generator.last().delta("d", 4);
    harness.tick();

    try (Harness next = harness.successor()) {
      next.tick();
      assertThat(next.generator.submissions).hasSize(1);
      Submission resumed = next.generator.last();
      assertThat(resumed.request.id()).isEqualTo("p1");
      assertThat(resumed.request.resume()).containsExactly(1, 200, 70_000);
      assertThat(resumed.request.sampling().seed())
          .isEqualTo(EventMapper.seedOf(SeenIds.Hash.of("p1")));
      resumed.done("abcd");
      next.tick();
      CompletionEvent completion = next.completions().getFirst().value();
      assertThat(completion.getAttempt()).isEqualTo(2);
      assertThat(completion.getSource().getOffset()).isZero();
      next.tick();
      assertThat(next.stored(InFlightStore.PROMPTS)).isZero();
    }
  }

  @Test
  void shouldLetTheEngineGetOnlySoFarAheadOfWhatIsDurable() {
    harness.send(Harness.prompt("p1").build());
    Submission submission = harness.generator.last();
    assertThat(submission.allowed).isEqualTo(64);
    submission.delta("a", IntStream.range(0, 10).toArray());
    harness.tick();
    harness.tick();
    assertThat(submission.allowed).as("nothing is saved yet").isEqualTo(64);

    submission.delta("b", IntStream.range(10, 30).toArray());
    harness.tick();
    assertThat(harness.stored(InFlightStore.PROGRESS)).as("saved").isEqualTo(1);
    assertThat(submission.allowed).as("and not durable").isEqualTo(64);
    harness.tick();
    assertThat(submission.allowed).isEqualTo(30 + 64);

    try (Harness next = harness.successor()) {
      next.tick();
      assertThat(next.generator.last().request.resume()).hasSize(30);
      assertThat(next.generator.last().allowed).isEqualTo(30 + 64);
    }
  }

  @Test
  void shouldKeepWhatItSavedFromAnOwnerThatWasCutOffAndWritesOn() {
    harness.close();
    harness = new Harness("progress.save.tokens", "3");
    harness.send(Harness.prompt("p1").build());
    harness.generator.last().delta("a", 1, 2, 3);
    harness.tick();
    Map<String, Map<Bytes, byte[]>> before = harness.stores();
    try (Harness next = harness.successor("progress.save.tokens", "3")) {
      next.tick();
      next.generator.last().delta("b", 4, 5, 6);
      next.tick();
      next.generator.last().delta("c", 7, 8, 9);
      next.tick();

      // The first one's next save, which was on its way all the time.
      harness.generator.last().delta("b", 4, 5, 6, 7);
      harness.tick();
      next.takeIn(harness, before);

      try (Harness third = next.successor()) {
        third.tick();
        assertThat(third.generator.last().request.resume())
            .containsExactly(1, 2, 3, 4, 5, 6, 7, 8, 9);
        third.generator.last().done("x");
        third.tick();
        third.tick();
        assertThat(third.stored(InFlightStore.PROGRESS)).isZero();
      }
    }
  }

  @Test
  void shouldKeepItsProgressApartWhereAnEarlierOwnersNoteCameLate() {
    harness.close();
    harness = new Harness("progress.save.tokens", "3");
    harness.send(Harness.prompt("p1").build());
    harness.generator.last().delta("a", 1, 2, 3);
    harness.tick();
    Map<Bytes, byte[]> late = owners(harness.stores());
    try (Harness next = harness.successor("progress.save.tokens", "3")) {
      next.tick();
      next.generator.last().delta("b", 4, 5, 6);
      next.tick();
      Map<String, Map<Bytes, byte[]>> stores = next.stores();
      progress(stores).putAll(late);
      try (Harness third = Harness.successor(stores, "progress.save.tokens", "3")) {
        third.tick();
        third.generator.last().delta("c", 7, 8, 9);
        third.tick();
        try (Harness fourth = third.successor()) {
          fourth.tick();
          assertThat(fourth.generator.last().request.resume())
              .containsExactly(1, 2, 3, 4, 5, 6, 7, 8, 9);
        }
      }
    }
  }

  @Test
  void shouldTakeATermOfItsOwnWhereTheOwnerBeforeItHadSavedNothing() {
    harness.close();
    harness = new Harness("progress.save.tokens", "3");
    harness.send(Harness.prompt("p1").build());
    harness.generator.last().delta("a", 1, 2, 3);
    harness.tick();
    Map<Bytes, byte[]> late = owners(harness.stores());
    try (Harness next = harness.successor("progress.save.tokens", "3")) {
      // It has the task for certain, and what it writes of its prompts is on its way.
      next.advance(PromptProcessor.TICK);
      Map<String, Map<Bytes, byte[]>> stores = harness.stores();
      progress(stores).putAll(owners(next.stores()));
      progress(stores).putAll(late);
      try (Harness third = Harness.successor(stores, "progress.save.tokens", "3")) {
        third.tick();
        third.generator.last().delta("b", 4, 5, 6);
        third.tick();
        assertThat(progress(third.stores()).keySet())
            .filteredOn(key -> !InFlightStore.isOwner(key))
            .extracting(PromptKey::term)
            .contains(3)
            .doesNotContain(2);
      }
    }
  }

  @Test
  void shouldKeepNoNoteOfEarlierOwnersOnceItHasTheTaskForCertain() {
    harness.send(Harness.prompt("p1").build());
    harness.tick();
    try (Harness next = harness.successor()) {
      next.advance(PromptProcessor.TICK);
      assertThat(owners(next.stores())).as("before its own is durable").hasSize(2);
      next.tick();
      assertThat(owners(next.stores())).hasSize(1);
      try (Harness third = next.successor()) {
        third.tick();
        third.tick();
        assertThat(owners(third.stores()).keySet()).extracting(PromptKey::term).containsExactly(3);
      }
    }
  }

  @Test
  void shouldReadTheNoteThatAnEarlierVersionKeptOfTheOwner() {
    Map<String, Map<Bytes, byte[]>> stores = harness.stores();
    byte[] note = owners(stores).values().iterator().next();
    progress(stores).keySet().removeIf(InFlightStore::isOwner);
    ByteBuffer.wrap(note).putInt(note.length - 4, 7);
    progress(stores).put(InFlightStore.ANY_OWNER, note);
    try (Harness next = Harness.successor(stores)) {
      next.tick();
      next.tick();
      assertThat(owners(next.stores()).keySet()).extracting(PromptKey::term).containsExactly(8);
    }
  }

  private static Map<Bytes, byte[]> owners(Map<String, Map<Bytes, byte[]>> stores) {
    Map<Bytes, byte[]> owners = new HashMap<>(progress(stores));
    owners.keySet().removeIf(key -> !InFlightStore.isOwner(key));
    return owners;
  }

  private static Map<Bytes, byte[]> progress(Map<String, Map<Bytes, byte[]>> stores) {
    return Objects.requireNonNull(stores.get(InFlightStore.PROGRESS));
  }

  @Test
  void shouldSaveAheadOfTimeWhatHasComeFar() {
    harness.close();
    harness = new Harness("progress.save.tokens", "1000", "progress.ahead.tokens", "20");
    harness.send(Harness.prompt("p1").build());
    harness.generator.last().delta("a", IntStream.range(0, 10).toArray());
    harness.tick();
    assertThat(harness.stored(InFlightStore.PROGRESS)).isZero();
    harness.generator.last().delta("b", 10);
    harness.tick();
    assertThat(harness.stored(InFlightStore.PROGRESS)).isEqualTo(1);
    harness.tick();
    assertThat(harness.generator.last().allowed).isEqualTo(11 + 20);
  }

  @Test
  void shouldLetTheEngineGetAsFarAsItLikesWhereThatIsSet() {
    harness.close();
    harness = new Harness("progress.ahead.tokens", "0");
    harness.send(Harness.prompt("p1").build());
    assertThat(harness.generator.last().allowed).isEqualTo(Integer.MAX_VALUE);
  }

  @Test
  void shouldSaveProgressByTheClock() {
    harness.send(Harness.prompt("p1").build());
    harness.generator.last().delta("a", 1);
    harness.tick();
    assertThat(harness.stored(InFlightStore.PROGRESS)).isZero();
    harness.advance(Duration.ofSeconds(3));
    assertThat(harness.stored(InFlightStore.PROGRESS)).isEqualTo(1);
  }

  @Test
  void shouldSendARestoredOutcomeAgainInsteadOfGeneratingItAgain() {
    harness.send(Harness.prompt("p1").build());
    harness.tick();
    harness.generator.last().done(FinishReason.TOOL_CALLS, "4", new ToolCall(0, "add", "{}", null));
    harness.tick();
    CompletionEvent first = harness.completions().getFirst().value();

    try (Harness next = harness.successor()) {
      next.tick();
      assertThat(next.generator.submissions).isEmpty();
      assertThat(next.completions()).extracting(TestRecord::value).containsExactly(first);
      assertThat(next.toolCalls()).hasSize(1);
      next.tick();
      assertThat(next.stored(InFlightStore.PROMPTS)).isZero();
      assertThat(next.gate.kept()).isZero();
    }
  }

  @Test
  void shouldForgetARestoredPromptThatIsRememberedAsAnswered() {
    harness.send(Harness.prompt("p1").build());
    harness.generator.last().done("4");
    harness.tick();
    byte[] key = harness.changelog(InFlightStore.PROMPTS).getFirst().key();
    byte[] value = harness.store(InFlightStore.PROMPTS).get(Bytes.wrap(key));
    harness.tick();

    try (Harness next = harness.successor()) {
      // The tombstone was lost, the remembered id was not.
      next.store(InFlightStore.PROMPTS).put(Bytes.wrap(key), value);
      next.tick();
      assertThat(next.generator.submissions).isEmpty();
      assertThat(next.stored(InFlightStore.PROMPTS)).isZero();
      assertThat(next.gate.kept()).isZero();
    }
  }

  @Test
  void shouldTakeAReplayedRecordForTheOneThatItKept() {
    harness.send(Harness.prompt("p1").build());
    try (Harness next = harness.successor()) {
      next.tick();
      // The same offset again: it was not committed.
      next.send(Harness.prompt("p1").build());
      assertThat(next.generator.submissions).hasSize(1);
      assertThat(next.count("millrace.prompts.replayed")).isEqualTo(1);
    }
  }

  @Test
  void shouldDropAPromptThatLostAPieceAndReadItsRecordAgain() {
    harness.close();
    harness = new Harness();
    String text = "x".repeat(2 * InFlightStore.PIECE_BYTES);
    harness.send(Harness.prompt("big").setMessages(List.of()).setPrompt(text).build());
    assertThat(harness.stored(InFlightStore.PROMPTS)).isEqualTo(3);
    byte[] first = harness.changelog(InFlightStore.PROMPTS).getLast().key();

    try (Harness next = harness.successor()) {
      next.store(InFlightStore.PROMPTS).delete(Bytes.wrap(first));
      next.tick();
      assertThat(next.generator.submissions).isEmpty();
      assertThat(next.stored(InFlightStore.PROMPTS)).isZero();
    }
  }

  @Test
  void shouldWriteAPromptsFirstPieceLast() {
    String text = "x".repeat(2 * InFlightStore.PIECE_BYTES);
    harness.send(Harness.prompt("big").setMessages(List.of()).setPrompt(text).build());
    assertThat(harness.changelog(InFlightStore.PROMPTS))
        .extracting(piece -> PromptKey.number(Bytes.wrap(piece.key())))
        .containsExactly(2, 1, 0);
  }

  @Test
  void shouldKeepALongPromptInPieces() {
    String text = "ä".repeat(InFlightStore.PIECE_BYTES);
    harness.send(Harness.prompt("big").setMessages(List.of()).setPrompt(text).build());
    assertThat(harness.changelog(InFlightStore.PROMPTS))
        .allSatisfy(
            piece -> assertThat(piece.value()).hasSizeLessThanOrEqualTo(InFlightStore.PIECE_BYTES));
    try (Harness next = harness.successor()) {
      next.tick();
      assertThat(next.generator.last().request.prompt()).isEqualTo(new Prompt.Text(text));
      next.generator.last().done(text);
      next.tick();
      assertThat(next.completions().getFirst().value().getContent()).isEqualTo(text);
      try (Harness third = next.successor()) {
        third.tick();
        assertThat(third.completions().getFirst().value().getContent()).isEqualTo(text);
        third.tick();
        assertThat(third.stored(InFlightStore.PROMPTS)).isZero();
        assertThat(third.stored(InFlightStore.PROGRESS)).isZero();
      }
    }
  }

  @Test
  void shouldDropResultsThatComeAfterTheTaskIsGone() {
    harness.send(Harness.prompt("p1").build());
    Submission late = harness.generator.last();
    harness.closeDriver();
    assertThat(late.cancelled).isTrue();
    late.done("4");
    assertThat(harness.count("millrace.events.late")).isEqualTo(1);
    assertThat(harness.gate.kept()).isZero();
    assertThat(harness.gate.running()).isZero();
  }

  @Test
  void shouldTakeOnlyTheFirstOfTwoEnds() {
    harness.send(Harness.prompt("p1").build());
    harness.generator.last().done("4");
    harness.generator.last().done("5");
    harness.generator.last().failed(Failure.ENGINE, "too late");
    harness.tick();
    harness.tick();
    assertThat(harness.completions()).extracting(r -> r.value().getContent()).containsExactly("4");
    assertThat(harness.generator.submissions).hasSize(1);
  }

  @Test
  void shouldSendChunksOnceTheAttemptIsDurable() {
    harness.send(Harness.prompt("p1").setStream(true).build());
    harness.generator.last().delta("The ", 1);
    harness.advance(harness.config.chunksInterval());
    harness.generator.last().delta("answer ", 2);
    harness.advance(harness.config.chunksInterval());
    harness.generator.last().delta("is ", 3);
    harness.generator.last().done("The answer is 4");
    harness.tick();

    List<ChunkEvent> chunks = harness.chunks().stream().map(TestRecord::value).toList();
    assertThat(chunks).extracting("sequence").containsExactly(0, 1, 2);
    assertThat(chunks).extracting("content").containsExactly("The ", "answer ", "is ");
    assertThat(chunks).extracting("last").containsExactly(false, false, true);
    assertThat(chunks).allSatisfy(chunk -> assertThat(chunk.getAttempt()).isEqualTo(1));
    assertThat(harness.completions()).hasSize(1);
  }

  @Test
  void shouldGatherTextForAChunkUntilTheIntervalIsOver() {
    harness.send(Harness.prompt("p1").setStream(true).build());
    harness.tick();
    for (int i = 0; i < 30; i++) {
      harness.generator.last().delta(i + " ", i);
      harness.tick();
    }
    // 150 ms in steps of 5.
    List<ChunkEvent> chunks = harness.chunks().stream().map(TestRecord::value).toList();
    assertThat(chunks).hasSizeBetween(3, 4);
    assertThat(chunks.getFirst().getContent()).as("at once").isEqualTo("0 ");
    // What nothing follows goes out as well.
    harness.advance(harness.config.chunksInterval());
    harness.tick();
    String rest = harness.chunks().getLast().value().getContent();
    assertThat(rest).endsWith("29 ");
  }

  @Test
  void shouldCountTheNextAttemptsChunksFromZero() {
    harness.send(Harness.prompt("p1").setStream(true).build());
    harness.tick();
    harness.generator.last().delta("The ", 1);
    harness.tick();
    harness.generator.last().failed(Failure.ENGINE, "hiccup");
    harness.tick();
    harness.advance(Duration.ofSeconds(1));
    assertThat(harness.generator.last().request.resume()).containsExactly(1);
    harness.generator.last().delta("The answer");
    harness.tick();
    harness.tick();
    assertThat(harness.chunks())
        .extracting(r -> r.value().getAttempt() + ":" + r.value().getSequence())
        .containsExactly("1:0", "2:0");
  }
}
