package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.backend.DeviceException;
import java.util.Map;
import java.util.TreeMap;

/**
 * Shares out one block of a device's memory: bookkeeping alone, over addresses. What is freed may
 * be handed out again at once: the device works in the order of one stream, so that whoever had the
 * memory is done with it before whoever gets it.
 */
final class DeviceArena {
  /** Every address is a multiple of this. */
  static final int ALIGNMENT = 256;

  private final long bytes;

  /** Address to length, of what is free and of what is not. Free neighbours are always one. */
  private final TreeMap<Long, Long> free = new TreeMap<>();

  private final TreeMap<Long, Long> taken = new TreeMap<>();
  private long used;

  /**
   * @param address of the block, a multiple of {@link #ALIGNMENT}
   */
  DeviceArena(long address, long bytes) {
    if (address % ALIGNMENT != 0) {
      throw new IllegalArgumentException("the block begins at 0x" + Long.toHexString(address));
    }
    this.bytes = bytes / ALIGNMENT * ALIGNMENT;
    free.put(address, this.bytes);
  }

  /**
   * Takes memory from where there is first enough of it, so that what is taken one after another
   * lies side by side while nothing is freed.
   *
   * @param what it is for, for the message
   * @throws DeviceException if there is not enough in one piece
   */
  long allocate(String what, long length) {
    long rounded = Math.max(1, Math.ceilDiv(length, ALIGNMENT)) * ALIGNMENT;
    for (Map.Entry<Long, Long> piece : free.entrySet()) {
      if (piece.getValue() >= rounded) {
        long address = piece.getKey();
        long rest = piece.getValue() - rounded;
        free.remove(address);
        if (rest > 0) {
          free.put(address + rounded, rest);
        }
        taken.put(address, rounded);
        used += rounded;
        return address;
      }
    }
    throw new DeviceException(
        "%s needs %s of the GPU's memory: of the %s that this process holds %s are taken, and the largest free piece has %s"
            .formatted(what, size(length), size(bytes), size(used), size(largestFree())));
  }

  /**
   * Gives back.
   *
   * @param address as {@link #allocate} returned it
   */
  void free(long address) {
    Long length = taken.remove(address);
    if (length == null) {
      throw new IllegalArgumentException("nothing was taken at 0x" + Long.toHexString(address));
    }
    used -= length;
    long from = address;
    long to = address + length;
    Map.Entry<Long, Long> before = free.lowerEntry(address);
    if (before != null && before.getKey() + before.getValue() == from) {
      from = before.getKey();
      free.remove(from);
    }
    Long after = free.remove(to);
    if (after != null) {
      to += after;
    }
    free.put(from, to - from);
  }

  /** Bytes of the largest piece that can be taken. */
  long largestFree() {
    return free.values().stream().mapToLong(Long::longValue).max().orElse(0);
  }

  long used() {
    return used;
  }

  /** For messages. */
  static String size(long bytes) {
    return bytes >= 1L << 30
        ? "%.1f GB".formatted(bytes / (double) (1L << 30))
        : "%.1f MB".formatted(bytes / (double) (1L << 20));
  }
}
