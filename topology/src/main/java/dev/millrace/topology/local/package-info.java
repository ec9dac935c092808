/**
 * The parts that a worker needs around it, started on this machine alone: a Kafka broker and a
 * schema registry, both real, both on loopback. The demo and the tests stand on them.
 */
@NullMarked
package dev.millrace.topology.local;

import org.jspecify.annotations.NullMarked;
