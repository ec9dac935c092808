package dev.millrace.inference.backend.cpu;

import dev.millrace.inference.backend.Weight;
import dev.millrace.inference.checkpoint.WeightFormat;
import java.lang.foreign.MemorySegment;

/** A matrix in the checkpoint's mapped memory, as it is. */
record CpuWeight(MemorySegment data, WeightFormat format, int rows, int columns)
    implements Weight {}
