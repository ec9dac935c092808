/** The commands of {@code ./millrace}. */
@NullMarked
package dev.millrace.topology.cli;

import org.jspecify.annotations.NullMarked;
