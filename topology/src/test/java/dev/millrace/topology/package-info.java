@NullMarked
package dev.millrace.topology;

import org.jspecify.annotations.NullMarked;
