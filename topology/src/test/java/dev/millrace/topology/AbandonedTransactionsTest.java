package dev.millrace.topology;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import org.apache.kafka.clients.admin.Admin;
import org.junit.jupiter.api.Test;

class AbandonedTransactionsTest {
  private static final String OURS = UUID.randomUUID().toString();
  private static final String ALIVE = UUID.randomUUID().toString();
  private static final String DEAD = UUID.randomUUID().toString();

  private final AbandonedTransactions transactions =
      new AbandonedTransactions(
          WorkerConfig.of(Map.of("kafka.bootstrap.servers", "nowhere:1")),
          Admin.create(Map.of("bootstrap.servers", "127.0.0.1:1")),
          List::of);

  @Test
  void shouldEndOnlyThoseOfProcessesThatAreInTheGroupNoMore() {
    assertThat(
            transactions.abandoned(
                List.of("millrace-" + OURS + "-0", "millrace-" + ALIVE + "-1", id(DEAD)),
                Set.of(OURS, ALIVE),
                List.of("millrace-" + OURS + "-StreamThread-1-consumer")))
        .containsExactly(id(DEAD));
    transactions.close();
  }

  @Test
  void shouldLeaveOtherGroupsAloneWhoseNameBeginsAsOurs() {
    String uuid = UUID.randomUUID().toString();
    assertThat(
            transactions.abandoned(
                List.of(
                    "millrace-staging-" + uuid + "-0",
                    "millrace-etl-" + uuid + "-0",
                    "millrace-" + uuid + "-" + uuid + "-0",
                    "millrace-" + uuid,
                    "millrace-" + uuid + "-0-x",
                    "millrace-a-transactional-id-as-long-as-a-uuid-0",
                    "millrace-staging"),
                Set.of(OURS),
                List.of("millrace-" + OURS + "-StreamThread-1-consumer")))
        .isEmpty();
    transactions.close();
  }

  @Test
  void shouldTakeNoOtherClientForOneOfTheGroup() {
    assertThat(
            transactions.living(
                List.of(
                    "millrace-" + OURS + "-StreamThread-1-consumer",
                    "millrace-" + ALIVE + "-StreamThread-12-consumer")))
        .containsExactlyInAnyOrder(OURS, ALIVE);
    assertThat(
            transactions.living(
                List.of("millrace-" + OURS + "-StreamThread-1-consumer", "a-name-that-was-chosen")))
        .as("its process, and so its transactions, cannot be told")
        .isEmpty();
    transactions.close();
  }

  @Test
  void shouldEndNoneWhileThisProcessIsNoMember() {
    assertThat(
            transactions.abandoned(
                List.of(id(DEAD)),
                Set.of(ALIVE),
                List.of("millrace-" + OURS + "-StreamThread-1-consumer")))
        .isEmpty();
    transactions.close();
  }

  private static String id(String process) {
    return "millrace-" + process + "-0";
  }
}
