@NullMarked
package dev.millrace.inference.chat.jinja;

import org.jspecify.annotations.NullMarked;
