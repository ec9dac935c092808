/** Networks, each written once over the operations of a backend. */
@NullMarked
package dev.millrace.inference.model;

import org.jspecify.annotations.NullMarked;
