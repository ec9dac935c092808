/**
 * Tests across the modules: a real broker, a real registry, whole workers; and the arrows of the
 * code.
 */
@NullMarked
package dev.millrace.tests;

import org.jspecify.annotations.NullMarked;
