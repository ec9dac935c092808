/**
 * The engine's arithmetic on the processor, with the Vector API. Every sum has one order that
 * depends on neither batch, chunk, thread count nor vector width, so that answers are equal to the
 * bit; the other backends are checked against this one.
 */
@NullMarked
package dev.millrace.inference.backend.cpu;

import org.jspecify.annotations.NullMarked;
