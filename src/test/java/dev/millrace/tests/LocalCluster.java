package dev.millrace.tests;

import dev.millrace.topology.local.LocalRegistry;
import dev.millrace.topology.local.LocalStack;
import java.nio.file.Path;
import org.junit.jupiter.api.extension.ExtensionContext;
import org.junit.jupiter.api.extension.ParameterContext;
import org.junit.jupiter.api.extension.ParameterResolver;

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

  /** Gives the shared cluster to each test that has a parameter for it. */
  static final class Extension implements ParameterResolver {
    private static final ExtensionContext.Namespace SPACE =
        ExtensionContext.Namespace.create(LocalCluster.class);

    @Override
    public boolean supportsParameter(ParameterContext parameter, ExtensionContext context) {
      return parameter.getParameter().getType() == Cluster.class;
    }

    @Override
    public Object resolveParameter(ParameterContext parameter, ExtensionContext context) {
      // The root's store ends with the last test, and closes what is in it.
      return context
          .getRoot()
          .getStore(SPACE)
          .computeIfAbsent(
              LocalCluster.class, c -> new LocalCluster(LocalStack.start()), LocalCluster.class);
    }
  }
}
