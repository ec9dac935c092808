/**
 * NVIDIA GPUs: bfloat16 weights, activations, keys and values; sums and logits in float. One {@link
 * dev.millrace.inference.backend.cuda.CudaRunner} uses one GPU.
 */
@NullMarked
package dev.millrace.inference.backend.cuda;

import org.jspecify.annotations.NullMarked;
