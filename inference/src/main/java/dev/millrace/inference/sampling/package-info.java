@NullMarked
package dev.millrace.inference.sampling;

import org.jspecify.annotations.NullMarked;
