/** Hugging Face checkpoints as they are on disk: weights, shapes and the facts of the model. */
@NullMarked
package dev.millrace.inference.checkpoint;

import org.jspecify.annotations.NullMarked;
