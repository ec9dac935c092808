/**
 * Measurements: an engine with made-up requests, and a backend's operations one by one, each beside
 * what the device can do at most, measured in the same run.
 */
@NullMarked
package dev.millrace.inference.bench;

import org.jspecify.annotations.NullMarked;
