@NullMarked
package dev.millrace.inference.api;

import org.jspecify.annotations.NullMarked;
