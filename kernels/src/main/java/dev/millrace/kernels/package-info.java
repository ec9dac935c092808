/**
 * CUDA kernels and their launchers, which know pointers and sizes and nothing of a model. Every
 * launcher needs a current context on the calling thread ({@link Device}).
 */
@NullMarked
package dev.millrace.kernels;

import org.jspecify.annotations.NullMarked;
