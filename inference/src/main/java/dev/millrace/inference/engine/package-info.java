@NullMarked
package dev.millrace.inference.engine;

import org.jspecify.annotations.NullMarked;
