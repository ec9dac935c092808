package dev.millrace.topology.local;

import java.nio.file.Path;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import org.jspecify.annotations.Nullable;

/**
 * A broker and a registry with their files in a temporary folder. Whoever starts it closes it;
 * closing ends both and deletes the folder. The registry is a process of its own, or one in the
 * memory of this one, which then only this process can use.
 */
public final class LocalStack implements AutoCloseable {
  private final TemporaryFolder folder;
  private final LocalBroker broker;
  private final @Nullable LocalRegistry registry;

  private LocalStack(TemporaryFolder folder, LocalBroker broker, @Nullable LocalRegistry registry) {
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

  /** Starts a broker alone; the registry is in this process's memory. */
  public static LocalStack startWithoutRegistry() {
    TemporaryFolder folder = TemporaryFolder.create("millrace-");
    try {
      return new LocalStack(
          folder, LocalBroker.start(folder.path().resolve("broker"), Map.of()), null);
    } catch (RuntimeException e) {
      folder.close();
      throw e;
    }
  }

  public LocalBroker broker() {
    return broker;
  }

  /**
   * The registry that runs beside this process.
   *
   * @throws IllegalStateException if it is in this process's memory
   */
  public LocalRegistry registry() {
    if (registry == null) {
      throw new IllegalStateException("the registry is in this process's memory");
    }
    return registry;
  }

  /** What {@code registry.url} must be to use it. */
  public String registryUrl() {
    return registry == null ? "mock://" + folder.path().getFileName() : registry.url();
  }

  /** A place for files that live as long as the stack, such as a worker's state. */
  public Path folder() {
    return folder.path();
  }

  @Override
  public void close() {
    if (registry != null) {
      registry.close();
    }
    broker.close();
    folder.close();
  }
}
