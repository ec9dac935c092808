package dev.millrace.topology;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.api.FinishReason;
import dev.millrace.inference.api.GenerateEvent;
import dev.millrace.inference.api.GenerateEvent.Delta;
import dev.millrace.inference.api.GenerateEvent.Done;
import dev.millrace.inference.api.GenerateEvent.Failed;
import dev.millrace.inference.api.GenerateEvent.Failure;
import dev.millrace.inference.api.GenerateRequest;
import dev.millrace.inference.api.Generator.Generation;
import dev.millrace.inference.api.Prompt;
import dev.millrace.inference.api.ResponseFormat;
import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.api.Scheduling;
import dev.millrace.inference.api.ToolChoice;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;

class SyntheticGeneratorTest {
  private final BlockingQueue<GenerateEvent> events = new LinkedBlockingQueue<>();

  private static GenerateRequest request(int tokens, int... resume) {
    return new GenerateRequest(
        "p",
        new Prompt.Text("hello"),
        List.of(),
        ToolChoice.AUTO,
        ResponseFormat.TEXT,
        SamplingParams.greedy(tokens),
        null,
        "",
        Scheduling.ANY,
        resume);
  }

  private GenerateEvent next() throws InterruptedException {
    GenerateEvent event = events.poll(20, TimeUnit.SECONDS);
    assertThat(event).as("an event in time").isNotNull();
    return event;
  }

  @Test
  void shouldAnswerAtOnce() throws Exception {
    try (SyntheticGenerator generator = SyntheticGenerator.atOnce("s")) {
      Generation unused = generator.submit(request(5), events::add);
      assertThat(events).hasSize(1);
      Done done = (Done) next();
      assertThat(done.content()).isEqualTo(SyntheticGenerator.answer(request(5))).isNotEmpty();
      assertThat(done.usage().completion()).isEqualTo(5);
    }
  }

  @Test
  void shouldLetNoMoreRunThanAllowed() throws Exception {
    try (SyntheticGenerator generator = SyntheticGenerator.atRate("s", 1, 1)) {
      Generation first = generator.submit(request(1000), events::add);
      while (generator.status().running() < 1) {
        TimeUnit.MILLISECONDS.sleep(1);
      }
      Generation second = generator.submit(request(1000), events::add);
      Generation third = generator.submit(request(1000), events::add);
      second.cancel();
      assertThat(((Done) next()).finish()).isEqualTo(FinishReason.CANCELLED);
      TimeUnit.MILLISECONDS.sleep(50);
      assertThat(generator.status().running()).isEqualTo(1);
      first.cancel();
      assertThat(((Done) next()).finish()).isEqualTo(FinishReason.CANCELLED);
      while (generator.status().running() < 1 || generator.status().waiting() > 0) {
        TimeUnit.MILLISECONDS.sleep(1);
      }
      third.cancel();
    }
  }

  @Test
  void shouldGiveTheSameBytesWhenResumed() throws Exception {
    int[] first = {
      SyntheticGenerator.token(SyntheticGenerator.hash(request(9)), 0),
      SyntheticGenerator.token(SyntheticGenerator.hash(request(9)), 1)
    };
    try (SyntheticGenerator generator = SyntheticGenerator.atRate("s", 2000)) {
      Generation unused = generator.submit(request(9, first), events::add);
      StringBuilder text = new StringBuilder();
      int tokens = 0;
      GenerateEvent event = next();
      while (event instanceof Delta delta) {
        text.append(delta.content());
        tokens += delta.tokens().length;
        event = next();
      }
      assertThat(((Done) event).content()).isEqualTo(SyntheticGenerator.answer(request(9)));
      assertThat(text).hasToString(((Done) event).content());
      assertThat(tokens).as("resumed tokens are not reported again").isEqualTo(7);
    }
  }

  @Test
  void shouldWaitWhereItHasAllTheTokensThatItWasAllowed() throws Exception {
    try (SyntheticGenerator generator = SyntheticGenerator.atRate("s", 10_000)) {
      GenerateRequest request = request(20);
      Generation generation = generator.submit(allowed(request, 5), events::add);
      int tokens = 0;
      while (tokens < 5) {
        tokens += ((Delta) next()).tokens().length;
      }
      TimeUnit.MILLISECONDS.sleep(20);
      assertThat(events).isEmpty();
      generation.allow(20);
      GenerateEvent event = next();
      while (event instanceof Delta delta) {
        tokens += delta.tokens().length;
        event = next();
      }
      assertThat(tokens).isEqualTo(20);
      assertThat(((Done) event).content()).isEqualTo(SyntheticGenerator.answer(request));
    }
  }

  private static GenerateRequest allowed(GenerateRequest request, int tokens) {
    return request.resumed(request.scheduling().allowed(tokens), request.resume());
  }

  @Test
  void shouldTellResumedTextAlsoWhereItEndsBeforeItsTurn() throws Exception {
    int[] first = {SyntheticGenerator.token(SyntheticGenerator.hash(request(9)), 0)};
    try (SyntheticGenerator generator = SyntheticGenerator.atRate("s", 1, 1)) {
      Generation unused = generator.submit(request(1000), events::add);
      generator.submit(request(9, first), events::add).cancel();
      Delta told = (Delta) next();
      assertThat(told.content()).isEqualTo(((Done) next()).content()).isNotEmpty();
    }
  }

  @Test
  void shouldRefuseTokensThatItNeverGenerated() throws Exception {
    try (SyntheticGenerator generator = SyntheticGenerator.atOnce("s")) {
      Generation unused = generator.submit(request(9, -1), events::add);
      assertThat(((Failed) next()).failure()).isEqualTo(Failure.INVALID_REQUEST);
    }
  }

  @Test
  void shouldEndOnCancelAndOnClose() throws Exception {
    SyntheticGenerator generator = SyntheticGenerator.atRate("s", 0.001);
    generator.submit(request(9), events::add).cancel();
    assertThat(((Done) next()).finish()).isEqualTo(FinishReason.CANCELLED);
    Generation unused = generator.submit(request(9), events::add);
    generator.close();
    assertThat(((Failed) next()).failure()).isEqualTo(Failure.CLOSED);
    assertThat(events).isEmpty();
  }
}
