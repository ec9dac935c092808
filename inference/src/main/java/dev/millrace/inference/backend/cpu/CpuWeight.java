package dev.millrace.inference.backend.cpu;

import dev.millrace.inference.backend.Weight;
import dev.millrace.inference.checkpoint.Quantization;
import dev.millrace.inference.checkpoint.WeightFormat;
import java.lang.foreign.MemorySegment;
import org.jspecify.annotations.Nullable;

/**
 * A matrix in the checkpoint's mapped memory, as it is; one of FP8 as a copy in bfloat16, which
 * holds each number of e4m3.
 *
 * @param quantization of FP8: the numbers are still to be multiplied by its scale
 */
record CpuWeight(
    MemorySegment data,
    WeightFormat format,
    int rows,
    int columns,
    @Nullable Quantization quantization)
    implements Weight {}
