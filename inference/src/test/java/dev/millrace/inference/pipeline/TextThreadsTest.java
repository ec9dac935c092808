package dev.millrace.inference.pipeline;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.locks.LockSupport;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** What text threads say of how they come on. */
class TextThreadsTest {
  private final TextThreads threads = new TextThreads(2, 2);
  private final CountDownLatch on = new CountDownLatch(1);

  @AfterEach
  void close() {
    on.countDown();
    assertThat(threads.close()).isTrue();
  }

  /** A task that hangs until the test lets it go on. */
  private Runnable hang(CountDownLatch begun) {
    return () -> {
      begun.countDown();
      await(on);
    };
  }

  private static void await(CountDownLatch latch) {
    try {
      assertThat(latch.await(30, TimeUnit.SECONDS)).isTrue();
    } catch (InterruptedException e) {
      throw new IllegalStateException(e);
    }
  }

  private void answerSomething(int thread) {
    CountDownLatch done = new CountDownLatch(1);
    assertThat(threads.answer(thread, done::countDown)).isTrue();
    await(done);
  }

  private void awaitRest() throws InterruptedException {
    long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(30);
    long now = System.nanoTime();
    while (threads.progressNanos(now) != now) {
      assertThat(now).isLessThan(deadline);
      Thread.sleep(2);
      now = System.nanoTime();
    }
  }

  @Test
  void shouldBeUpToDateWhileThereIsNothingToDo() throws Exception {
    long later = System.nanoTime() + TimeUnit.HOURS.toNanos(1);
    assertThat(threads.progressNanos(later)).isEqualTo(later);
    answerSomething(0);
    awaitRest();
  }

  @Test
  void shouldSayWhenPromptsWaitThatNobodyEncodes() throws Exception {
    CountDownLatch begun = new CountDownLatch(2);
    assertThat(threads.encode(hang(begun))).isTrue();
    assertThat(threads.encode(hang(begun))).isTrue();
    await(begun);
    long hung = System.nanoTime();
    assertThat(threads.encode(() -> {})).isTrue();
    answerSomething(0);
    answerSomething(1);
    assertThat(threads.progressNanos(System.nanoTime()))
        .as("answers that go on do not hide it")
        .isLessThanOrEqualTo(hung);
    on.countDown();
    awaitRest();
  }

  @Test
  void shouldSayWhenOneAnsweringThreadHangs() {
    CountDownLatch begun = new CountDownLatch(1);
    assertThat(threads.answer(1, hang(begun))).isTrue();
    await(begun);
    long hung = System.nanoTime();
    answerSomething(0);
    assertThat(threads.progressNanos(System.nanoTime())).isLessThanOrEqualTo(hung);
  }

  @Test
  void shouldNotTakeTheRestBeforeATaskForATimeInWhichItHung() throws Exception {
    answerSomething(0);
    awaitRest();
    long rested = System.nanoTime();
    CountDownLatch begun = new CountDownLatch(1);
    assertThat(threads.answer(0, hang(begun))).isTrue();
    await(begun);
    assertThat(threads.progressNanos(System.nanoTime())).isGreaterThanOrEqualTo(rested);
  }

  @Test
  void shouldWaitForTheOthersWhereOneOfThemClosesThem() throws Exception {
    TextThreads threads = new TextThreads(1, 2);
    CountDownLatch busy = new CountDownLatch(1);
    AtomicBoolean over = new AtomicBoolean();
    threads.answer(
        1,
        () -> {
          busy.countDown();
          LockSupport.parkNanos(TimeUnit.MILLISECONDS.toNanos(200));
          over.set(true);
        });
    busy.await();
    CompletableFuture<Boolean> seen = new CompletableFuture<>();
    threads.answer(
        0,
        () -> {
          threads.close();
          seen.complete(over.get());
        });
    assertThat(seen.get(30, TimeUnit.SECONDS)).isTrue();
  }
}
