/** Tests across modules. */
@NullMarked
package dev.millrace.tests;

import org.jspecify.annotations.NullMarked;
