package dev.millrace.tests;

import java.util.function.Supplier;
import org.junit.jupiter.api.extension.ExtensionContext;
import org.junit.jupiter.api.extension.ParameterContext;
import org.junit.jupiter.api.extension.ParameterResolver;

/** Gives one cluster, shared by all test classes, to each test that has a parameter for it. */
abstract class ClusterExtension<C extends Cluster> implements ParameterResolver {
  private static final ExtensionContext.Namespace SPACE =
      ExtensionContext.Namespace.create(ClusterExtension.class);

  private final Class<C> type;
  private final Supplier<C> start;

  ClusterExtension(Class<C> type, Supplier<C> start) {
    this.type = type;
    this.start = start;
  }

  @Override
  public boolean supportsParameter(ParameterContext parameter, ExtensionContext context) {
    return parameter.getParameter().getType() == Cluster.class;
  }

  @Override
  public Object resolveParameter(ParameterContext parameter, ExtensionContext context) {
    // The root's store ends with the last test, and closes what is in it.
    return context.getRoot().getStore(SPACE).computeIfAbsent(type, c -> start.get(), type);
  }
}
