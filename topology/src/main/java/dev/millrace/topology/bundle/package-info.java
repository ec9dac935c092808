/** Makes one archive of all that a machine without Java and without a network needs. */
@NullMarked
package dev.millrace.topology.bundle;

import org.jspecify.annotations.NullMarked;
