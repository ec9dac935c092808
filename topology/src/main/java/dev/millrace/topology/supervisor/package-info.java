/** Several worker processes under one: started, watched, started again, and ended together. */
@NullMarked
package dev.millrace.topology.supervisor;

import org.jspecify.annotations.NullMarked;
