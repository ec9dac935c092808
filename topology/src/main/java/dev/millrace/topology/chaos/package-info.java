/**
 * Faults on purpose: a broker, a registry and workers in processes of their own, prompts at a
 * steady rate, a schedule of faults drawn from a seed, and books that say what became of each
 * prompt.
 */
@NullMarked
package dev.millrace.topology.chaos;

import org.jspecify.annotations.NullMarked;
