@NullMarked
package dev.millrace.inference.token;

import org.jspecify.annotations.NullMarked;
