/**
 * The arithmetic that a network is written in: about a dozen coarse operations over handles, so
 * that each device brings its own kernels and fusions while the networks stay as they are.
 */
@NullMarked
package dev.millrace.inference.backend;

import org.jspecify.annotations.NullMarked;
