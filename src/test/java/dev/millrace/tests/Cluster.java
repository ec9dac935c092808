package dev.millrace.tests;

import dev.millrace.topology.local.LocalRegistry;
import java.nio.file.Path;

/** A broker and a registry that run. Whoever made it closes it. */
interface Cluster extends AutoCloseable {
  /** For {@code bootstrap.servers}. */
  String bootstrap();

  LocalRegistry registry();

  /** For {@code registry.url}. */
  default String registryUrl() {
    return registry().url();
  }

  /** A place for files that live as long as the cluster. */
  Path folder();

  @Override
  void close();
}
