package dev.millrace.tests;

import dev.millrace.topology.local.LocalRegistry;
import dev.millrace.topology.local.LocalStack;
import java.nio.file.Path;

/** The broker of this process and the registry beside it: started once, for all test classes. */
final class LocalCluster implements Cluster {
  private final LocalStack stack;

  private LocalCluster(LocalStack stack) {
    this.stack = stack;
  }

  @Override
  public String bootstrap() {
    return stack.broker().bootstrap();
  }

  @Override
  public LocalRegistry registry() {
    return stack.registry();
  }

  @Override
  public Path folder() {
    return stack.folder();
  }

  @Override
  public void close() {
    stack.close();
  }

  /** Gives it to tests. */
  static final class Extension extends ClusterExtension<LocalCluster> {
    Extension() {
      super(LocalCluster.class, () -> new LocalCluster(LocalStack.start()));
    }
  }
}
