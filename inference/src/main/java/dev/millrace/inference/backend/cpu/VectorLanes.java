package dev.millrace.inference.backend.cpu;

import java.lang.foreign.MemorySegment;
import java.nio.ByteOrder;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.VectorShuffle;
import jdk.incubator.vector.VectorSpecies;

/**
 * The order of sums. A dot product has {@link #LANES} running sums: element k belongs to sum k %
 * LANES, in ascending k, by fused multiply-add; {@link #reduce} adds the sums up in a fixed tree.
 * How wide the machine's vectors are decides only how many of the sums advance at once.
 *
 * <p>Kernels hold two vectors a dot product, for sums [p, p + WIDTH) and [8 + p, 8 + p + WIDTH), in
 * passes over p: one pass with vectors of 8, two with vectors of 4. Wider machines run vectors of
 * 8: what streams weights waits for memory anyway.
 */
final class VectorLanes {
  /** Running sums of a dot product. */
  static final int LANES = 16;

  static final VectorSpecies<Float> FLOATS =
      FloatVector.SPECIES_PREFERRED.length() >= 8
          ? FloatVector.SPECIES_256
          : FloatVector.SPECIES_128;
  static final VectorSpecies<Integer> INTS =
      FLOATS.length() == 8 ? IntVector.SPECIES_256 : IntVector.SPECIES_128;

  /** Floats of a vector, 4 or 8. */
  static final int WIDTH = FLOATS.length();

  private static final VectorShuffle<Float> BY_4 = rotation(4);
  private static final VectorShuffle<Float> BY_2 = rotation(2);
  private static final VectorShuffle<Float> BY_1 = rotation(1);

  private VectorLanes() {}

  /** Sum of the running sums at {@code at}: sum j plus j + 8, then plus j + 4, j + 2, j + 1. */
  static float reduce(float[] sums, int at) {
    FloatVector v = load(sums, at).add(load(sums, at + 8));
    v = WIDTH == 8 ? v.add(v.rearrange(BY_4)) : v.add(load(sums, at + 4).add(load(sums, at + 12)));
    v = v.add(v.rearrange(BY_2));
    return v.add(v.rearrange(BY_1)).lane(0);
  }

  private static VectorShuffle<Float> rotation(int by) {
    return VectorShuffle.fromOp(FLOATS, i -> (i + by) % WIDTH);
  }

  static FloatVector load(float[] from, int at) {
    return FloatVector.fromArray(FLOATS, from, at);
  }

  static FloatVector load(MemorySegment from, long at) {
    return FloatVector.fromMemorySegment(FLOATS, from, at, ByteOrder.LITTLE_ENDIAN);
  }

  static IntVector loadInts(MemorySegment from, long at) {
    return IntVector.fromMemorySegment(INTS, from, at, ByteOrder.LITTLE_ENDIAN);
  }
}
