/** Which devices there are: opens a model on the one that is asked for. One line a backend. */
@NullMarked
package dev.millrace.inference.device;

import org.jspecify.annotations.NullMarked;
