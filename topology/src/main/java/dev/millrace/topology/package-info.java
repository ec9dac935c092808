/**
 * The worker: its settings, the Kafka Streams topology that takes prompts in and sends their
 * outcomes out, and what keeps every accepted prompt until it has ended in exactly one way.
 *
 * <p>Only the stream thread touches Kafka and the state stores. The generator's threads hand their
 * events over in a queue, one for each task.
 */
@NullMarked
package dev.millrace.topology;

import org.jspecify.annotations.NullMarked;
