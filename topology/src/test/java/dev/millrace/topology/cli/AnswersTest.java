package dev.millrace.topology.cli;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

/** What a benchmark says of the answers that it got. */
class AnswersTest {
  private final Answers answers = new Answers();

  private void take(String... ids) {
    for (String id : ids) {
      answers.take(id.getBytes(UTF_8));
    }
  }

  @Test
  void shouldSayThatEachWasAnsweredOnce() {
    take("load-1", "load-0", "latency-a-b-0");
    assertThat(answers.once(3)).isTrue();
    assertThat(answers.summary(3)).isEqualTo("each answered once");
  }

  @Test
  void shouldNotTakeOneAnswerTwiceForTwoAnswers() {
    take("load-0", "load-1", "load-1");
    assertThat(answers.once(3)).isFalse();
    assertThat(answers.summary(3)).isEqualTo("3 sent, 2 answered, 1 of the answers again");
  }

  @Test
  void shouldNotBeContentWithAnswersThatCameAgain() {
    take("load-0", "load-1", "load-1");
    assertThat(answers.once(2)).isFalse();
  }

  @Test
  void shouldNotTakeAnythingElseForAnAnswer() {
    answers.take(null);
    take("load-x", "", "load--1", "load-4294967295");
    assertThat(answers.prompts()).isEqualTo(1);
    assertThat(answers.once(5)).isFalse();
  }
}
