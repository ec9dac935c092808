package dev.millrace.kernels;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.List;

/**
 * The driver's {@code CUlaunchConfig} of a kernel that is launched in ways of its own. Used again
 * and again; its memory goes with it.
 */
final class LaunchConfig {
  /** How a kernel is launched: by the number that the driver has for it. */
  enum Way {
    /** All of its blocks run at once, or it is not launched. */
    TOGETHER(2),
    /** So many of its blocks, one after another, are a cluster: see {@link #clusters}. */
    CLUSTERS(4),
    /** It may be set up while the kernel before it in its stream still runs. */
    OVERLAPPING(6);

    private final int attribute;

    Way(int attribute) {
      this.attribute = attribute;
    }
  }

  // Offsets in CUlaunchConfig and CUlaunchAttribute, and their sizes.
  private static final long GRID_X = 0;
  private static final long GRID_Y = 4;
  private static final long GRID_Z = 8;
  private static final long BLOCK_X = 12;
  private static final long BLOCK_Y = 16;
  private static final long BLOCK_Z = 20;
  private static final long SHARED_BYTES = 24;
  private static final long STREAM = 32;
  private static final long ATTRIBUTES = 40;
  private static final long ATTRIBUTE_COUNT = 48;
  private static final long CONFIG_BYTES = 56;
  private static final long ATTRIBUTE_ID = 0;
  private static final long ATTRIBUTE_VALUE = 8;
  private static final long ATTRIBUTE_BYTES = 72;

  private final MemorySegment segment;
  private final MemorySegment attributes;
  private final List<Way> ways;

  LaunchConfig(Way... ways) {
    Arena arena = Arena.ofAuto();
    this.segment = arena.allocate(CONFIG_BYTES, 8);
    this.attributes = arena.allocate(ways.length * ATTRIBUTE_BYTES, 8);
    this.ways = List.of(ways);
    for (int i = 0; i < ways.length; i++) {
      attributes.set(ValueLayout.JAVA_INT, i * ATTRIBUTE_BYTES + ATTRIBUTE_ID, ways[i].attribute);
      attributes.set(ValueLayout.JAVA_INT, i * ATTRIBUTE_BYTES + ATTRIBUTE_VALUE, 1);
    }
    for (long one : new long[] {GRID_Z, BLOCK_Y, BLOCK_Z}) {
      segment.set(ValueLayout.JAVA_INT, one, 1);
    }
    segment.set(ValueLayout.JAVA_INT, ATTRIBUTE_COUNT, ways.length);
    segment.set(ValueLayout.ADDRESS, ATTRIBUTES, attributes);
  }

  /** How many blocks a cluster has; said before the first launch. */
  LaunchConfig clusters(int blocks) {
    long value = ways.indexOf(Way.CLUSTERS) * ATTRIBUTE_BYTES + ATTRIBUTE_VALUE;
    attributes.set(ValueLayout.JAVA_INT, value, blocks);
    attributes.set(ValueLayout.JAVA_INT, value + Integer.BYTES, 1);
    attributes.set(ValueLayout.JAVA_INT, value + 2 * Integer.BYTES, 1);
    return this;
  }

  LaunchConfig of(int gridX, int gridY, int threads, int sharedBytes, long stream) {
    segment.set(ValueLayout.JAVA_INT, GRID_X, gridX);
    segment.set(ValueLayout.JAVA_INT, GRID_Y, gridY);
    segment.set(ValueLayout.JAVA_INT, BLOCK_X, threads);
    segment.set(ValueLayout.JAVA_INT, SHARED_BYTES, sharedBytes);
    segment.set(ValueLayout.JAVA_LONG, STREAM, stream);
    return this;
  }

  MemorySegment segment() {
    return segment;
  }
}
