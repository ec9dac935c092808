package dev.millrace.topology.chaos;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.api.GenerateEvent;
import dev.millrace.inference.api.GenerateRequest;
import dev.millrace.inference.api.Generator;
import dev.millrace.inference.api.Message;
import dev.millrace.inference.api.Prompt;
import dev.millrace.inference.api.ResponseFormat;
import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.api.Scheduling;
import dev.millrace.inference.api.ToolChoice;
import dev.millrace.schemas.ChunkEvent;
import dev.millrace.schemas.CompletionEvent;
import dev.millrace.schemas.CompletionFinish;
import dev.millrace.schemas.ToolCallEvent;
import dev.millrace.topology.chaos.FaultPlan.Step;
import dev.millrace.topology.chaos.Planned.Kind;
import dev.millrace.topology.chaos.Planned.Poison;
import dev.millrace.topology.chaos.WorkerPlace.Life;
import dev.millrace.topology.cli.EventClient.Outcome;
import java.nio.file.Path;
import java.time.Duration;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Consumer;
import java.util.function.Predicate;
import java.util.stream.IntStream;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.record.TimestampType;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** A run is good only if nothing is wrong with it: each kind of wrong is noticed. */
class BooksTest {
  private static final long SEED = 3;
  private static final byte[] BYTES = {1, 2, 3};

  /** When outcomes are written, unless a test says otherwise. */
  private static final long AT = 500_000;

  /** What progress.ahead.tokens is. */
  private static final int AHEAD = 64;

  private final FaultLog faults = new FaultLog(0);
  private final Holders holders = new Holders();
  private final List<Life> lives = new ArrayList<>();
  private final Recovery recovery = new Recovery();
  private final Books books = new Books(recovery);
  private final Load load = new Load(options("at_least_once"));
  private int number;
  @TempDir Path folder;

  private static ChaosOptions options(String guarantee) {
    return new ChaosOptions(
        SEED,
        Duration.ofMinutes(1),
        guarantee,
        "classic",
        2,
        10,
        60,
        100,
        List.of(Fault.KILL),
        Duration.ofSeconds(6),
        Map.of(),
        Map.of());
  }

  private List<String> failures(String guarantee) {
    books.checkChunks();
    return report(guarantee).failures();
  }

  private ChaosReport report(String guarantee) {
    return new ChaosReport(
        options(guarantee), books, recovery, faults, holders, Regenerated.of(lives), AHEAD);
  }

  private String failures() {
    return String.join("\n", failures("at_least_once"));
  }

  /** The next prompt of that kind, sent and taken. */
  private Planned send(Kind kind) {
    return send(plan -> plan.kind() == kind);
  }

  private Planned send(Predicate<Planned> wanted) {
    Planned plan = load.steady(number++);
    while (!wanted.test(plan)) {
      plan = load.steady(number++);
    }
    books.sending(plan, BYTES, plan.deadlineMs() == 0 ? 0 : AT);
    books.taken(plan.number(), 0, 0);
    return plan;
  }

  private static ConsumerRecord<byte[], byte[]> record(
      long at, byte @Nullable [] value, Map<String, String> headers) {
    RecordHeaders made = new RecordHeaders();
    headers.forEach((name, text) -> made.add(name, text.getBytes(UTF_8)));
    return new ConsumerRecord<>(
        "topic",
        0,
        0,
        at,
        TimestampType.CREATE_TIME,
        0,
        0,
        new byte[0],
        value,
        made,
        java.util.Optional.empty());
  }

  private void complete(Planned plan) {
    complete(plan, CompletionFinish.LENGTH, Load.answer(plan), AT);
  }

  private void complete(Planned plan, CompletionFinish finish, String content, long at) {
    complete(plan, finish, content, at, 1);
  }

  private void complete(
      Planned plan, CompletionFinish finish, String content, long at, int attempt) {
    CompletionEvent event =
        CompletionEvent.newBuilder()
            .setPromptId(plan.id())
            .setAttempt(attempt)
            .setFinishReason(finish)
            .setContent(content)
            .build();
    books.enter(new Outcome.Completion(event, record(at, BYTES, Map.of())), at);
  }

  private void deadLetter(Planned plan, String reason, byte @Nullable [] value) {
    deadLetter(plan, value, Map.of("millrace.reason", reason));
  }

  private void deadLetter(Planned plan, byte @Nullable [] value, Map<String, String> headers) {
    books.enter(new Outcome.DeadLetter(plan.id(), "because", record(AT, value, headers)), AT);
  }

  private void chunk(Planned plan, int sequence, String content, boolean last) {
    ChunkEvent event =
        ChunkEvent.newBuilder()
            .setPromptId(plan.id())
            .setAttempt(1)
            .setSequence(sequence)
            .setContent(content)
            .setLast(last)
            .build();
    books.enter(new Outcome.Chunk(event, record(AT, BYTES, Map.of())), AT);
  }

  /** A letter in the middle is another. */
  private static String spoiled(String text) {
    int at = text.length() / 2;
    return text.substring(0, at) + (char) (text.charAt(at) ^ 1) + text.substring(at + 1);
  }

  @Test
  void shouldFindNothingWrongWhereNothingIs() {
    complete(send(Kind.PLAIN));
    complete(send(Kind.LARGE));
    complete(send(Kind.TWICE));
    Planned cancelled = send(plan -> plan.kind() == Kind.CANCELLED && !plan.event().getStream());
    complete(cancelled, CompletionFinish.CANCELLED, Load.answer(cancelled).substring(0, 12), AT);
    Planned late = send(Kind.DEADLINE);
    complete(late, CompletionFinish.EXPIRED, "", AT);
    Planned streamed = send(Kind.STREAMED);
    chunk(streamed, 0, Load.answer(streamed), false);
    chunk(streamed, 1, "", true);
    complete(streamed);
    Planned poison = send(plan -> plan.poison() == Poison.GARBAGE);
    deadLetter(poison, "BAD_RECORD", BYTES);
    Planned large = send(plan -> plan.poison() == Poison.OVERSIZED);
    deadLetter(
        large,
        null,
        Map.of("millrace.reason", "RECORD_TOO_LARGE", "millrace.value.omitted", "300000"));
    assertThat(failures("exactly_once_v2")).as("seed %d", SEED).isEmpty();
  }

  @Test
  void shouldNoticeAPromptThatIsLost() {
    complete(send(Kind.PLAIN));
    Planned lost = send(Kind.PLAIN);
    assertThat(failures()).contains("1 prompts have no outcome: " + lost.id());
  }

  @Test
  void shouldNoticeAWrongByte() {
    Planned plan = send(Kind.PLAIN);
    complete(plan, CompletionFinish.LENGTH, spoiled(Load.answer(plan)), AT);
    assertThat(failures()).contains(plan.id(), "other bytes than in a run without faults");
  }

  @Test
  void shouldNoticeAWrongByteOfAnAnswerThatWasCutOff() {
    Planned plan = send(Kind.CANCELLED);
    complete(plan, CompletionFinish.CANCELLED, spoiled(Load.answer(plan).substring(0, 30)), AT);
    assertThat(failures()).contains(plan.id(), "other bytes than in a run without faults");
  }

  @Test
  void shouldNoticeAnAnswerThatLacksItsEnd() {
    Planned plan = send(Kind.PLAIN);
    complete(plan, CompletionFinish.LENGTH, Load.answer(plan).substring(0, 30), AT);
    assertThat(failures()).contains("30 characters");
  }

  @Test
  void shouldNoticeAnEndThatNobodyAskedFor() {
    Planned cancelled = send(Kind.PLAIN);
    complete(cancelled, CompletionFinish.CANCELLED, "", AT);
    Planned expired = send(Kind.CANCELLED);
    complete(expired, CompletionFinish.EXPIRED, "", AT);
    assertThat(failures())
        .contains(
            cancelled.id() + " (plain) ended as CANCELLED",
            expired.id() + " (cancelled) ended as EXPIRED");
  }

  @Test
  void shouldNoticeAPromptThatExpiredTooSoon() {
    Planned plan = send(Kind.DEADLINE);
    complete(plan, CompletionFinish.EXPIRED, "", AT - 1);
    assertThat(failures()).contains(plan.id() + " expired 1 ms before its deadline");
  }

  /** The prompt, and its answer a second time. */
  private Planned completeTwice() {
    Planned plan = send(Kind.PLAIN);
    complete(plan);
    complete(plan, CompletionFinish.LENGTH, Load.answer(plan), AT + 8_000);
    return plan;
  }

  /** All prompts are of partition 0; the worker has had it for a while. */
  private void held(int worker) {
    holders.ran(0, worker, AT - 6_000);
  }

  @Test
  void shouldNoticeADuplicateThatNoFaultWasNear() {
    held(1);
    faults.ended(Fault.KILL, 1, AT - 11_000, AT - 10_000);
    faults.ended(Fault.KILL, 1, AT + 10_000, AT + 11_000);
    Planned plan = completeTwice();
    assertThat(failures()).contains("1 duplicates", plan.id() + ", partition 0: first at 500.0 s");
  }

  @Test
  void shouldAllowADuplicateOfWhatWasSentJustBeforeItsWorkerWasKilled() {
    held(1);
    faults.ended(Fault.KILL, 1, AT + 1_300, AT + 1_350);
    completeTwice();
    assertThat(failures("at_least_once")).isEmpty();
    assertThat(String.join("\n", report("at_least_once").lines())).contains("{KILL=1}");
    assertThat(String.join("\n", failures("exactly_once_v2"))).contains("1 duplicates");
  }

  @Test
  void shouldNoticeADuplicateOfWhatShouldHaveBeenRetiredBeforeItsWorkerWasKilled() {
    held(1);
    faults.ended(Fault.KILL, 1, AT + 4_000, AT + 4_050);
    completeTwice();
    assertThat(failures()).contains("1 duplicates");
  }

  @Test
  void shouldNoticeADuplicateOfATaskThatTheKilledWorkerDidNotHave() {
    held(0);
    faults.ended(Fault.KILL, 1, AT + 1_000, AT + 1_050);
    holders.ran(1, 1, AT - 1_000);
    holders.moved(1, 0, AT + 1_000, true);
    completeTwice();
    assertThat(failures()).contains("1 duplicates");
  }

  @Test
  void shouldNoticeADuplicateOfATaskThatTheKilledWorkerHadHandedOver() {
    held(1);
    holders.moved(0, 1, AT - 2_000, false);
    faults.ended(Fault.KILL, 1, AT + 1_000, AT + 1_050);
    completeTwice();
    assertThat(failures()).contains("1 duplicates");
  }

  @Test
  void shouldAllowADuplicateOfATaskThatMovedJustAfter() {
    holders.moved(0, 1, AT + 1_000, false);
    completeTwice();
    assertThat(failures()).isEmpty();
  }

  @Test
  void shouldNoticeADuplicateOfATaskThatMovedLongAfterOrBefore() {
    holders.moved(0, 1, AT + 4_000, false);
    holders.moved(0, 0, AT - 1, true);
    completeTwice();
    assertThat(failures()).contains("1 duplicates");
  }

  @Test
  void shouldAllowADuplicateWhereItsWorkerCouldNotCommitForLong() {
    held(1);
    faults.heldUp(Fault.FREEZE, 1, AT - 5_000, AT + 4_000);
    completeTwice();
    assertThat(failures()).isEmpty();
  }

  @Test
  void shouldAllowADuplicateOfATaskThatASlowWorkerWasGiven() {
    faults.heldUp(Fault.SLOW, 1, AT - 8_000, AT + 4_000);
    held(1);
    completeTwice();
    assertThat(failures()).isEmpty();
  }

  @Test
  void shouldNoticeADuplicateWhereAnotherWorkerCouldNotCommitForLong() {
    held(0);
    faults.heldUp(Fault.FREEZE, 1, AT - 5_000, AT + 4_000);
    completeTwice();
    assertThat(failures()).contains("1 duplicates");
  }

  @Test
  void shouldAllowADuplicateWhereNobodyCouldCommitAndItsTaskMovedThen() {
    faults.heldUp(Fault.BROKER, FaultLog.ALL, AT - 5_000, AT - 4_000);
    holders.moved(0, 1, AT + 7_000, true);
    completeTwice();
    assertThat(failures()).isEmpty();
  }

  @Test
  void shouldNoticeADuplicateWhereNobodyCouldCommitAndItsTaskDidNotMove() {
    faults.heldUp(Fault.BROKER, FaultLog.ALL, AT - 5_000, AT + 4_000);
    holders.moved(1, 1, AT + 7_000, true);
    completeTwice();
    assertThat(failures()).contains("1 duplicates");
  }

  @Test
  void shouldFindMovesInAWorkersLog() {
    String line =
        "2026-11-21T22:03:33.719Z INFO  [chaos-9-StreamThread-1] d.m.t.PromptProcessor: task 0_3 ";
    long at = OffsetDateTime.parse("2026-11-21T22:03:33.719Z").toInstant().toEpochMilli();
    assertThat(WorkerPlace.move(line + "hands over 9 prompts"))
        .contains(new WorkerPlace.Move(3, at, false));
    assertThat(WorkerPlace.move(line + "takes over 9 prompts"))
        .contains(new WorkerPlace.Move(3, at, true));
    assertThat(WorkerPlace.move(line + "could not save what it hands over")).isEmpty();
  }

  @Test
  void shouldNoticeADeadLetterThatCameTwice() {
    Planned poison = send(plan -> plan.poison() == Poison.GARBAGE);
    deadLetter(poison, "BAD_RECORD", BYTES);
    deadLetter(poison, "BAD_RECORD", BYTES);
    assertThat(String.join("\n", failures("exactly_once_v2"))).contains("1 duplicates");
  }

  @Test
  void shouldNoticeASecondEndThatIsAnotherOne() {
    holders.moved(0, 1, AT, false);
    Planned other = send(Kind.PLAIN);
    complete(other);
    complete(other, CompletionFinish.LENGTH, spoiled(Load.answer(other)), AT);
    Planned dead = send(Kind.PLAIN);
    complete(dead);
    deadLetter(dead, "INTERNAL", BYTES);
    Planned poison = send(plan -> plan.poison() == Poison.GARBAGE);
    deadLetter(poison, "BAD_RECORD", BYTES);
    complete(poison);
    assertThat(failures())
        .contains(
            other.id() + " ended as LENGTH",
            dead.id() + " has a completion and a dead letter",
            poison.id() + " is poison (GARBAGE) and was answered");
  }

  @Test
  void shouldAllowAnotherEndThatIsOfAnEarlierAttemptAndRight() {
    holders.moved(0, 1, AT, false);
    Planned cancelled = send(plan -> plan.kind() == Kind.CANCELLED && !plan.event().getStream());
    complete(cancelled, CompletionFinish.CANCELLED, "", AT, 2);
    complete(cancelled, CompletionFinish.LENGTH, Load.answer(cancelled), AT, 1);
    assertThat(failures("at_least_once")).isEmpty();
    complete(cancelled, CompletionFinish.LENGTH, spoiled(Load.answer(cancelled)), AT, 1);
    assertThat(failures()).contains("other bytes than in a run without faults");
  }

  @Test
  void shouldNoticeAGoodPromptAmongTheDeadLetters() {
    Planned plan = send(Kind.PLAIN);
    deadLetter(plan, "ENGINE_FAILED", BYTES);
    assertThat(failures())
        .contains(
            plan.id() + " (plain) became a dead letter: ENGINE_FAILED: because",
            "dead letters are {ENGINE_FAILED=1}, injected poison is {}");
  }

  @Test
  void shouldNoticePoisonThatWasAnswered() {
    Planned poison = send(Kind.POISON);
    complete(poison);
    assertThat(failures()).contains(poison.id() + " is poison", "injected poison is {");
  }

  @Test
  void shouldNoticeADeadLetterThatIsNotTheRecordAsItCame() {
    Planned bytes = send(plan -> plan.poison() == Poison.CUT_OFF);
    deadLetter(bytes, "BAD_RECORD", new byte[] {1, 2});
    Planned reason = send(plan -> plan.poison() == Poison.NOTHING_ASKED);
    deadLetter(reason, "BAD_RECORD", BYTES);
    Planned large = send(plan -> plan.poison() == Poison.OVERSIZED);
    deadLetter(large, "RECORD_TOO_LARGE", null);
    assertThat(failures())
        .contains(
            bytes.id() + " is CUT_OFF and its dead letter has other bytes",
            reason.id() + " is NOTHING_ASKED and its dead letter says BAD_RECORD",
            large.id() + " is OVERSIZED and its dead letter has other bytes");
  }

  @Test
  void shouldNoticeWhatNobodySent() {
    Planned never = load.steady(7);
    complete(never);
    deadLetter(never, "BAD_RECORD", BYTES);
    chunk(never, 0, "", true);
    ToolCallEvent call = ToolCallEvent.newBuilder().setPromptId("p-9").build();
    books.enter(new Outcome.ToolCall(call, record(AT, BYTES, Map.of())), AT);
    assertThat(failures())
        .contains(
            "a completion of 'p-7', which was never sent",
            "a dead letter of 'p-7', which was never sent",
            "a chunk of 'p-7', which was never sent",
            "a tool call of p-9");
  }

  @Test
  void shouldNoticeAGapBetweenChunks() {
    Planned plan = send(Kind.STREAMED);
    chunk(plan, 0, "", false);
    chunk(plan, 2, Load.answer(plan), true);
    complete(plan);
    assertThat(failures()).contains(plan.id() + ", attempt 1: a gap before chunk 2");
  }

  @Test
  void shouldNoticeChunksThatAreNotTheAnswer() {
    Planned none = send(Kind.STREAMED);
    complete(none);
    Planned other = send(Kind.STREAMED);
    chunk(other, 0, spoiled(Load.answer(other)), true);
    complete(other);
    Planned open = send(Kind.STREAMED);
    chunk(open, 0, Load.answer(open), false);
    complete(open);
    assertThat(failures())
        .contains(
            none.id() + ": no chunk of the winning attempt 1",
            other.id() + ": the chunks of the winning attempt 1 make",
            open.id() + ": the winning attempt 1 has no last chunk");
  }

  @Test
  void shouldNoticeAChunkThatCameTwiceUnderExactlyOnce() {
    Planned plan = send(Kind.STREAMED);
    IntStream.range(0, 2).forEach(again -> chunk(plan, 0, Load.answer(plan), true));
    complete(plan);
    assertThat(failures("at_least_once")).isEmpty();
    assertThat(failures("exactly_once_v2"))
        .containsExactly("1 chunks came twice under exactly_once_v2");
  }

  @Test
  void shouldNoticeThatTooManyTokensWereGeneratedAgain() {
    // The later life first: when they began counts.
    Life first = life("first", Fault.KILL, 0, 100);
    Life second = life("second", null, 30, 120);
    lives.addAll(List.of(second, first));
    assertThat(failures())
        .isEqualTo("70 tokens of one prompt were generated again at once, 64 are allowed");
    assertThat(String.join("\n", report("at_least_once").lines()))
        .contains("70 of 190 generated; most for one prompt: kill -9 during {KILL=70}");
  }

  @Test
  void shouldAllowAsManyTokensAgainAsTheSettingSays() {
    lives.addAll(List.of(life("first", Fault.KILL, 0, 100), life("second", null, 36, 120)));
    assertThat(failures()).isEmpty();
  }

  /**
   * One process that generated tokens of one prompt, and began after all that were there before.
   */
  private Life life(String name, @Nullable Fault killedBy, int from, int to) {
    Path file = folder.resolve(name);
    TokenLog log = TokenLog.create(file);
    long before = System.currentTimeMillis();
    while (System.currentTimeMillis() == before) {
      Thread.onSpinWait();
    }
    try (LoggedGenerator generator = new LoggedGenerator(new Steps(to), log)) {
      var unused = generator.submit(request(from), event -> {});
    }
    return new Life(file, killedBy);
  }

  /** Generates one token after the other at once. */
  private record Steps(int to) implements Generator {
    @Override
    public String model() {
      return "steps";
    }

    @Override
    public Generation submit(GenerateRequest request, Consumer<GenerateEvent> listener) {
      for (int token = request.resume().length; token < to; token++) {
        listener.accept(new GenerateEvent.Delta("x", "", new int[] {token}));
      }
      return new Generation() {
        @Override
        public void cancel() {}

        @Override
        public void allow(int tokens) {}
      };
    }

    @Override
    public Status status() {
      throw new UnsupportedOperationException("nobody asks");
    }

    @Override
    public void close() {}
  }

  private static GenerateRequest request(int from) {
    return new GenerateRequest(
        Planned.id(0),
        new Prompt.Chat(List.of(Message.of(Message.Role.USER, "question"))),
        List.of(),
        ToolChoice.AUTO,
        ResponseFormat.TEXT,
        SamplingParams.greedy(1),
        null,
        "",
        Scheduling.of(0),
        new int[from]);
  }

  @Test
  void shouldNoticeThatNoKillHitAnything() {
    faults.planned(2);
    assertThat(failures()).contains("2 kills were planned and none hit a worker with prompts");
    faults.killedInFlight();
    assertThat(failures()).isEmpty();
  }

  @Test
  void shouldNoticeThatOutputNeverCameBack() {
    recovery.begin(Fault.FREEZE, AT - 1_000, Set.of(0, 3));
    complete(send(Kind.PLAIN));
    assertThat(failures()).contains("output never came back after FREEZE", "partitions [3]");
  }

  private static Step step(Fault fault) {
    return new Step(0, fault, 0, Duration.ZERO, 0);
  }

  @Test
  void shouldNoticeAKillWhoseRecoveryWasNotMeasured() {
    List<Step> plan = List.of(step(Fault.KILL), step(Fault.KILL));
    complete(send(Kind.PLAIN));
    recovery.begin(Fault.KILL, AT, Set.of());
    recovery.begin(Fault.KILL, AT, Set.of(0));
    recovery.arrived(0, AT + 1, AT + 4_000);
    assertThat(Scenarios.failoverFailures(report("at_least_once"), plan, 6_000))
        .containsExactly("KILL: 1 recoveries were measured of 2 planned");
    recovery.begin(Fault.KILL, AT, Set.of(0));
    recovery.arrived(0, AT + 1, AT + 7_000);
    assertThat(Scenarios.failoverFailures(report("at_least_once"), plan, 7_000)).isEmpty();
    assertThat(Scenarios.failoverFailures(report("at_least_once"), plan, 6_000))
        .containsExactly("output stayed away for 7000 ms, more than 6000");
  }

  @Test
  void shouldNoticeARollingRestartThatShowsNothing() {
    List<Step> plan = List.of(step(Fault.TERMINATE));
    assertThat(Scenarios.rollingFailures(report("at_least_once"), plan, 5_000))
        .containsExactly(
            "TERMINATE: 0 recoveries were measured of 1 planned",
            "no prompt was answered before the first restart, or none after it");
    assertThat(Scenarios.rollingFailures(report("at_least_once"), List.of(), 5_000))
        .contains("TERMINATE: 0 recoveries were measured of 0 planned");
  }
}
