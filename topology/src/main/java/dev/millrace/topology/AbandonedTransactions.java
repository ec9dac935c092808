package dev.millrace.topology;

import java.time.Duration;
import java.util.Collection;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListTransactionsOptions;
import org.apache.kafka.clients.admin.MemberDescription;
import org.apache.kafka.clients.admin.StreamsGroupMemberDescription;
import org.apache.kafka.clients.admin.TransactionListing;
import org.apache.kafka.clients.admin.TransactionState;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Ends the transactions that workers of this group left open when they died. Until such a
 * transaction has ended, nobody reads what others write after it, and its worker's tasks cannot
 * move; the broker would only notice when it times out. Looks for them for a while after each
 * rebalance, and ends only those of processes that are in the group no more: such a process may not
 * commit any longer in any case.
 *
 * <p>Needs the right to describe the group and its transactions; without it nothing happens but
 * that the broker's timeout decides. The worker makes and closes it; safe for several threads.
 */
final class AbandonedTransactions implements AutoCloseable {
  private static final Logger log = LoggerFactory.getLogger(AbandonedTransactions.class);

  /** A live worker's transactions are a fraction of this long. */
  private static final long LEAST_AGE_MS = 1_000;

  private static final Duration LOOKING = Duration.ofSeconds(30);
  private static final long EVERY_MS = 500;
  private static final String UUID = "(\\p{XDigit}{8}(?:-\\p{XDigit}{4}){3}-\\p{XDigit}{12})";
  private static final int TIMEOUT_S = 10;

  private final String group;
  private final Pattern transactionalId;
  private final Pattern clientId;
  private final boolean streamsProtocol;
  private final Admin admin;
  private final Supplier<Collection<String>> ownClientIds;
  private final ScheduledExecutorService thread =
      Executors.newSingleThreadScheduledExecutor(
          Thread.ofPlatform().daemon().name("millrace-transactions").factory());
  private volatile long until = System.nanoTime();

  /**
   * @param ownClientIds the client ids of this process, as Kafka Streams names them
   */
  AbandonedTransactions(
      WorkerConfig config, Admin admin, Supplier<Collection<String>> ownClientIds) {
    this.group = config.applicationId();
    // As Kafka Streams names them. All of a name has to fit, since other groups' may begin alike.
    String process = Pattern.quote(group + "-") + UUID;
    this.transactionalId = Pattern.compile(process + "-\\d+");
    this.clientId = Pattern.compile(process + "-StreamThread-\\d+-consumer");
    this.streamsProtocol = config.streamsProtocol();
    this.admin = admin;
    this.ownClientIds = ownClientIds;
    var unused =
        thread.scheduleWithFixedDelay(this::look, EVERY_MS, EVERY_MS, TimeUnit.MILLISECONDS);
  }

  /** The group is changing: somebody may have died. */
  void groupChanges() {
    until = System.nanoTime() + LOOKING.toNanos();
  }

  private void look() {
    if (System.nanoTime() - until > 0) {
      return;
    }
    try {
      List<String> old =
          admin
              .listTransactions(
                  new ListTransactionsOptions()
                      .filterStates(List.of(TransactionState.ONGOING))
                      .filterOnDuration(LEAST_AGE_MS))
              .all()
              .get(TIMEOUT_S, TimeUnit.SECONDS)
              .stream()
              .map(TransactionListing::transactionalId)
              .filter(id -> process(transactionalId, id) != null)
              .toList();
      if (old.isEmpty()) {
        return;
      }
      Set<String> living = living();
      List<String> abandoned = abandoned(old, living, ownClientIds.get());
      if (!abandoned.isEmpty()) {
        log.info("ending the transactions of workers that are gone: {}", abandoned);
        admin.fenceProducers(abandoned).all().get(TIMEOUT_S, TimeUnit.SECONDS);
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    } catch (ExecutionException | java.util.concurrent.TimeoutException | RuntimeException e) {
      log.debug("open transactions of the group cannot be looked at", e);
    }
  }

  /**
   * Those of this group's processes that are not in it; none while this process is not either.
   *
   * @param transactions transactional ids, those of other groups among them
   */
  List<String> abandoned(
      Collection<String> transactions, Set<String> living, Collection<String> own) {
    boolean member =
        own.stream()
            .map(id -> process(clientId, id))
            .anyMatch(process -> process != null && living.contains(process));
    return member ? transactions.stream().filter(id -> isOfNone(id, living)).toList() : List.of();
  }

  private boolean isOfNone(String id, Set<String> living) {
    String process = process(transactionalId, id);
    return process != null && !living.contains(process);
  }

  private Set<String> living()
      throws InterruptedException, ExecutionException, java.util.concurrent.TimeoutException {
    Stream<String> clients =
        streamsProtocol
            ? admin
                .describeStreamsGroups(List.of(group))
                .all()
                .get(TIMEOUT_S, TimeUnit.SECONDS)
                .values()
                .stream()
                .flatMap(description -> description.members().stream())
                .map(StreamsGroupMemberDescription::clientId)
            : admin
                .describeConsumerGroups(List.of(group))
                .all()
                .get(TIMEOUT_S, TimeUnit.SECONDS)
                .values()
                .stream()
                .flatMap(description -> description.members().stream())
                .map(MemberDescription::clientId);
    return living(clients.toList());
  }

  /**
   * The processes that are in the group; none if a member's name does not tell its process, since
   * its transactions could then be any.
   */
  Set<String> living(Collection<String> clients) {
    Set<String> living = new HashSet<>();
    for (String client : clients) {
      String process = process(clientId, client);
      if (process == null) {
        return Set.of();
      }
      living.add(process);
    }
    return living;
  }

  /** The process in a name of that form; null in any other. */
  private static @Nullable String process(Pattern form, String name) {
    Matcher matcher = form.matcher(name);
    return matcher.matches() ? matcher.group(1) : null;
  }

  @Override
  public void close() {
    thread.shutdownNow();
    admin.close(Duration.ZERO);
  }
}
