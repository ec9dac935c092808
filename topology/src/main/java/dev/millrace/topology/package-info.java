/** The Kafka side: topology, delivery, settings and the command line. */
@NullMarked
package dev.millrace.topology;

import org.jspecify.annotations.NullMarked;
