package dev.millrace.topology.local;

import java.nio.file.Path;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;

/**
 * A broker and a registry with their files in a temporary folder. Whoever starts it closes it;
 * closing ends both and deletes the folder.
 */
public final class LocalStack implements AutoCloseable {
  private final TemporaryFolder folder;
  private final LocalBroker broker;
  private final LocalRegistry registry;

  private LocalStack(TemporaryFolder folder, LocalBroker broker, LocalRegistry registry) {
    this.folder = folder;
    this.broker = broker;
    this.registry = registry;
  }

  /** Starts both, at the same time, and returns when both answer. */
  public static LocalStack start() {
    TemporaryFolder folder = TemporaryFolder.create("millrace-");
    CompletableFuture<LocalRegistry> registry =
        CompletableFuture.supplyAsync(() -> LocalRegistry.start(folder.path().resolve("registry")));
    LocalBroker broker = null;
    try {
      broker = LocalBroker.start(folder.path().resolve("broker"), Map.of());
      return new LocalStack(folder, broker, registry.join());
    } catch (RuntimeException e) {
      // Whichever of the two came up goes down again.
      if (broker != null) {
        broker.close();
      }
      registry
          .handle(
              (started, failure) -> {
                if (started != null) {
                  started.close();
                }
                return null;
              })
          .join();
      folder.close();
      if (e instanceof CompletionException && e.getCause() instanceof RuntimeException cause) {
        throw cause;
      }
      throw e;
    }
  }

  public LocalBroker broker() {
    return broker;
  }

  public LocalRegistry registry() {
    return registry;
  }

  /** A place for files that live as long as the stack, such as a worker's state. */
  public Path folder() {
    return folder.path();
  }

  @Override
  public void close() {
    registry.close();
    broker.close();
    folder.close();
  }
}
