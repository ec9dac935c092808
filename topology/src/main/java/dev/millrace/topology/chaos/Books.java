package dev.millrace.topology.chaos;

import dev.millrace.schemas.ChunkEvent;
import dev.millrace.schemas.CompletionEvent;
import dev.millrace.schemas.CompletionFinish;
import dev.millrace.topology.chaos.Planned.Kind;
import dev.millrace.topology.cli.EventClient.Outcome;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.header.Header;
import org.jspecify.annotations.Nullable;

/**
 * The books of a run: each prompt that was sent, and what became of it, held to what must become of
 * it. Safe for several threads.
 */
final class Books {
  /** Number of a prompt that is sent before all others and does not count. */
  static final int WARM_UP = 999_999;

  private static final int MOST_PROBLEMS = 40;

  private final Recovery recovery;
  private final Map<Integer, Account> accounts = new LinkedHashMap<>();
  private final Map<CompletionFinish, Integer> finishes = new EnumMap<>(CompletionFinish.class);
  private final Map<String, Integer> reasons = new TreeMap<>();
  private final List<Duplicate> duplicated = new ArrayList<>();
  private final List<String> problems = new ArrayList<>();
  private int problemCount;
  private int settled;
  private int repeatedChunks;
  private long chunks;

  /**
   * An outcome beyond a prompt's first.
   *
   * @param partition of the prompts' topic
   * @param firstMs when the first was written, milliseconds since 1970
   * @param againMs when this one was
   * @param late it is another end than the first, and of another attempt: one of the two is of a
   *     worker that had been cut off, and had finished what another has cancelled or found expired
   */
  record Duplicate(String id, int partition, long firstMs, long againMs, boolean late) {}

  /** One prompt. */
  private static final class Account {
    final Planned plan;
    byte @Nullable [] value;
    long deadline;
    int partition = -1;
    boolean settled;
    @Nullable CompletionFinish finish;
    int attempt;
    int length;
    int hash;
    int tokens;
    long takenMs;
    long writtenMs;
    long arrivedMs;
    @Nullable Chunks chunks;

    Account(Planned plan) {
      this.plan = plan;
    }
  }

  Books(Recovery recovery) {
    this.recovery = recovery;
  }

  /**
   * A prompt is about to be sent.
   *
   * @param value its record's
   * @param deadline milliseconds since 1970; 0: none
   */
  synchronized void sending(Planned plan, byte @Nullable [] value, long deadline) {
    Account account = new Account(plan);
    if (plan.kind() == Kind.POISON) {
      account.value = value;
    }
    account.deadline = deadline;
    accounts.put(plan.number(), account);
  }

  /** The broker has it. */
  synchronized void taken(int number, int partition, long takenMs) {
    Account account = accounts.get(number);
    if (account != null) {
      account.partition = partition;
      account.takenMs = takenMs;
    }
  }

  synchronized void problem(String what) {
    problemCount++;
    if (problems.size() < MOST_PROBLEMS) {
      problems.add(what);
    }
  }

  /** Enters what was read. */
  synchronized void enter(Outcome outcome, long nowMs) {
    switch (outcome) {
      case Outcome.Completion completion -> completion(completion, nowMs);
      case Outcome.DeadLetter dead -> deadLetter(dead, nowMs);
      case Outcome.Chunk chunk -> chunk(chunk.event());
      case Outcome.ToolCall call -> problem("a tool call of " + call.event().getPromptId());
    }
  }

  private @Nullable Account account(String id, String what) {
    Account account = accounts.get(Planned.number(id));
    if (account == null && Planned.number(id) != WARM_UP) {
      problem(what + " of '" + id + "', which was never sent");
    }
    return account;
  }

  private void completion(Outcome.Completion completion, long nowMs) {
    CompletionEvent event = completion.event();
    Account account = account(event.getPromptId(), "a completion");
    if (account == null) {
      return;
    }
    String content = event.getContent();
    if (account.settled) {
      boolean other =
          account.finish != event.getFinishReason() || account.hash != content.hashCode();
      boolean late = other && event.getAttempt() != account.attempt;
      duplicate(account, completion.source(), late);
      if (late) {
        check(account, event.getFinishReason(), content, completion.source().timestamp());
      } else if (other) {
        problem(
            "%s ended as %s with %d characters, and again as %s with %d"
                .formatted(
                    account.plan.id(),
                    account.finish == null ? "a dead letter" : account.finish,
                    account.length,
                    event.getFinishReason(),
                    content.length()));
      }
      return;
    }
    account.finish = event.getFinishReason();
    account.attempt = event.getAttempt();
    account.length = content.length();
    account.hash = content.hashCode();
    account.tokens = event.getUsage().getCompletion();
    finishes.merge(event.getFinishReason(), 1, Integer::sum);
    settle(account, completion.source(), nowMs);
    check(account, event.getFinishReason(), content, completion.source().timestamp());
  }

  private void duplicate(Account account, ConsumerRecord<byte[], byte[]> source, boolean late) {
    duplicated.add(
        new Duplicate(
            account.plan.id(), account.partition, account.writtenMs, source.timestamp(), late));
  }

  private void check(Account account, CompletionFinish finish, String content, long writtenMs) {
    Planned plan = account.plan;
    if (plan.kind() == Kind.POISON) {
      problem(plan.id() + " is poison (" + plan.poison() + ") and was answered");
      return;
    }
    String answer = Load.answer(plan);
    boolean whole = finish == CompletionFinish.LENGTH;
    if (whole ? !content.equals(answer) : !answer.startsWith(content)) {
      problem(
          "%s (%s) ended as %s with other bytes than in a run without faults: %d characters, %d are right"
              .formatted(plan.id(), plan.kind(), finish, content.length(), answer.length()));
    }
    boolean allowed =
        whole
            || (finish == CompletionFinish.CANCELLED && plan.kind() == Kind.CANCELLED)
            || (finish == CompletionFinish.EXPIRED && plan.kind() == Kind.DEADLINE);
    if (!allowed) {
      problem(plan.id() + " (" + plan.kind() + ") ended as " + finish);
    }
    if (finish == CompletionFinish.EXPIRED && writtenMs < account.deadline) {
      problem(plan.id() + " expired " + (account.deadline - writtenMs) + " ms before its deadline");
    }
  }

  private void deadLetter(Outcome.DeadLetter dead, long nowMs) {
    Account account = account(dead.key(), "a dead letter");
    if (account == null) {
      return;
    }
    if (account.settled) {
      duplicate(account, dead.source(), false);
      if (account.finish != null) {
        problem(account.plan.id() + " has a completion and a dead letter");
      }
      return;
    }
    settle(account, dead.source(), nowMs);
    String reason = header(dead.source(), "millrace.reason");
    reasons.merge(reason, 1, Integer::sum);
    Planned.Poison poison = account.plan.poison();
    if (poison == null) {
      problem(
          "%s (%s) became a dead letter: %s: %s"
              .formatted(account.plan.id(), account.plan.kind(), reason, dead.reason()));
    } else if (!reason.equals(poison.reason)) {
      problem(account.plan.id() + " is " + poison + " and its dead letter says " + reason);
    } else if (poison == Planned.Poison.OVERSIZED
        ? header(dead.source(), "millrace.value.omitted").isEmpty()
        : !Arrays.equals(dead.source().value(), account.value)) {
      problem(account.plan.id() + " is " + poison + " and its dead letter has other bytes");
    }
    account.value = null;
  }

  private void settle(Account account, ConsumerRecord<byte[], byte[]> source, long nowMs) {
    account.settled = true;
    account.writtenMs = source.timestamp();
    account.arrivedMs = nowMs;
    settled++;
    if (account.partition >= 0) {
      recovery.arrived(account.partition, source.timestamp(), nowMs);
    }
  }

  private void chunk(ChunkEvent event) {
    Account account = account(event.getPromptId(), "a chunk");
    if (account == null) {
      return;
    }
    chunks++;
    if (account.chunks == null) {
      account.chunks = new Chunks();
    }
    switch (account.chunks.add(event)) {
      case NEXT -> {
        // As it should be.
      }
      case SEEN_BEFORE -> repeatedChunks++;
      case GAP ->
          problem(
              "%s, attempt %d: a gap before chunk %d"
                  .formatted(account.plan.id(), event.getAttempt(), event.getSequence()));
    }
  }

  private static String header(ConsumerRecord<byte[], byte[]> record, String name) {
    Header header = record.headers().lastHeader(name);
    return header == null || header.value() == null
        ? ""
        : new String(header.value(), StandardCharsets.UTF_8);
  }

  /** Holds the chunks of each streamed prompt to its completion; once, when all were read. */
  synchronized void checkChunks() {
    for (Account account : accounts.values()) {
      boolean ran = account.finish != null && account.attempt > 0;
      if (account.plan.event().getStream() && ran) {
        Chunks seen = account.chunks == null ? new Chunks() : account.chunks;
        String problem = seen.problem(account.attempt, account.length, account.hash);
        if (problem != null) {
          problem(account.plan.id() + ": " + problem);
        }
      }
    }
  }

  /** Partitions of the prompts' topic that have prompts in flight. */
  synchronized Set<Integer> partitionsInFlight() {
    Set<Integer> partitions = new HashSet<>();
    for (Account account : accounts.values()) {
      if (!account.settled && account.partition >= 0) {
        partitions.add(account.partition);
      }
    }
    return partitions;
  }

  /** The partition that a prompt was written to; -1 where that is not known. */
  synchronized int partition(int number) {
    Account account = accounts.get(number);
    return account == null ? -1 : account.partition;
  }

  synchronized boolean open(int number) {
    Account account = accounts.get(number);
    return account != null && !account.settled;
  }

  /**
   * How long answered prompts took beyond the time that the engine needs for them, shortest first,
   * in milliseconds.
   *
   * @param fromMs of those alone that the broker took from this time on
   * @param toMs and before this one
   */
  synchronized List<Long> waits(double tokensPerSecond, long fromMs, long toMs) {
    return accounts.values().stream()
        .filter(a -> a.settled && a.finish == CompletionFinish.LENGTH && a.plan.againAtMs() == 0)
        .filter(a -> a.takenMs >= fromMs && a.takenMs < toMs)
        .map(a -> a.arrivedMs - a.takenMs - (long) (a.tokens * 1000 / tokensPerSecond))
        .sorted()
        .toList();
  }

  /** What was sent and has no outcome. */
  synchronized List<String> missing() {
    return accounts.values().stream()
        .filter(account -> !account.settled)
        .map(
            account ->
                "%s (%s, partition %d)"
                    .formatted(account.plan.id(), account.plan.kind(), account.partition))
        .toList();
  }

  synchronized int sent() {
    return accounts.size();
  }

  synchronized int settled() {
    return settled;
  }

  synchronized int completions() {
    return finishes.values().stream().mapToInt(n -> n).sum();
  }

  synchronized int finished(CompletionFinish finish) {
    return finishes.getOrDefault(finish, 0);
  }

  /** Dead letters by reason. */
  synchronized Map<String, Integer> deadLetters() {
    return new TreeMap<>(reasons);
  }

  /** Injected poison by the reason that its dead letters must have. */
  synchronized Map<String, Integer> poison() {
    Map<String, Integer> injected = new TreeMap<>();
    for (Account account : accounts.values()) {
      Planned.Poison poison = account.plan.poison();
      if (poison != null) {
        injected.merge(poison.reason, 1, Integer::sum);
      }
    }
    return injected;
  }

  synchronized List<Duplicate> duplicated() {
    return List.copyOf(duplicated);
  }

  synchronized long chunks() {
    return chunks;
  }

  synchronized int repeatedChunks() {
    return repeatedChunks;
  }

  /** Streamed prompts of which more than one attempt was seen. */
  synchronized long streamedAgain() {
    return accounts.values().stream()
        .filter(account -> account.chunks != null && account.chunks.attempts() > 1)
        .count();
  }

  synchronized int problemCount() {
    return problemCount;
  }

  /** What is wrong; not more than a screen of it. */
  synchronized List<String> problems() {
    return List.copyOf(problems);
  }
}
