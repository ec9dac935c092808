@NullMarked
package dev.millrace.inference.chat;

import org.jspecify.annotations.NullMarked;
