@NullMarked
package dev.millrace.inference.tool;

import org.jspecify.annotations.NullMarked;
