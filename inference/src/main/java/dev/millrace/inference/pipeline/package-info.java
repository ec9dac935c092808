@NullMarked
package dev.millrace.inference.pipeline;

import org.jspecify.annotations.NullMarked;
