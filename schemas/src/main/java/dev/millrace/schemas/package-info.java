/**
 * The events on Millrace's topics and the serde that reads and writes them through a schema
 * registry. The event classes are generated from {@code src/main/avro}.
 */
@NullMarked
package dev.millrace.schemas;

import org.jspecify.annotations.NullMarked;
