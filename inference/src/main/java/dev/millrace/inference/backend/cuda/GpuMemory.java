package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.backend.DeviceException;
import dev.millrace.kernels.CudaException;
import dev.millrace.kernels.Device;
import dev.millrace.kernels.DeviceMemory;
import dev.millrace.kernels.Event;
import dev.millrace.kernels.PinnedMemory;
import dev.millrace.kernels.Stream;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.IntStream;

/**
 * The one block of a GPU's memory that a backend uses, and the way there from the host: through two
 * pinned buffers in turn, so that one fills while the other is copied. Owned and closed by the
 * backend.
 */
final class GpuMemory implements AutoCloseable {
  private static final int STAGE_BYTES = 32 << 20;

  /** Left to the driver and the libraries, which take memory for their code as they go. */
  private static final long RESERVE = 768L << 20;

  /** Below this several threads copy no faster than one. */
  private static final int PART_BYTES = 4 << 20;

  private final DeviceMemory block;
  private final DeviceArena arena;
  private final Stream stream;
  private final List<Stage> stages = new ArrayList<>();
  private int next;
  private long freed;
  private Runnable beforeCopies = () -> {};

  private record Stage(PinnedMemory memory, Event copied) {}

  /**
   * @param fraction of the memory that is free now, above 0, at most 1
   */
  GpuMemory(Device device, double fraction, Stream stream) {
    long free = device.freeMemory();
    long bytes = (long) (fraction * free) - RESERVE;
    if (bytes <= 0) {
      throw new DeviceException(
          "%s has %s of %s free, too little for any model"
              .formatted(
                  device.name(), DeviceArena.size(free), DeviceArena.size(device.totalMemory())));
    }
    this.stream = stream;
    this.block = new DeviceMemory(bytes);
    this.arena = new DeviceArena(block.address(), bytes);
    for (int i = 0; i < 2; i++) {
      stages.add(new Stage(new PinnedMemory(STAGE_BYTES), Event.blocking()));
    }
  }

  DeviceMemory block() {
    return block;
  }

  /** See {@link DeviceArena#allocate}. */
  long allocate(String what, long bytes) {
    return arena.allocate(what, bytes);
  }

  void free(long address) {
    freed++;
    arena.free(address);
  }

  /** How often something was given back. */
  long freed() {
    return freed;
  }

  long largestFree() {
    return arena.largestFree();
  }

  /** What is to be done before anything is copied from or to the host. */
  void beforeCopies(Runnable work) {
    beforeCopies = work;
  }

  void zero(long address, long bytes) {
    block.fill(address, 0, bytes, stream);
  }

  /** A piece of something large, on the device now; the next may overwrite it. */
  interface Piece {
    void arrived(long offset, long bytes);
  }

  /** Brings bytes to the device; they were read when this returns. */
  void upload(long address, MemorySegment from) {
    upload(from, (offset, bytes) -> address + offset, (offset, bytes) -> {});
  }

  /**
   * Brings bytes through a buffer on the device that is as large as a stage.
   *
   * @param buffer on the device
   * @param piece called when a stretch of {@code from} has been put there, in stream order
   */
  void uploadThrough(long buffer, MemorySegment from, Piece piece) {
    upload(from, (offset, bytes) -> buffer, piece);
  }

  static int stageBytes() {
    return STAGE_BYTES;
  }

  private interface Target {
    long at(long offset, long bytes);
  }

  private void upload(MemorySegment from, Target target, Piece piece) {
    beforeCopies.run();
    for (long offset = 0; offset < from.byteSize(); offset += STAGE_BYTES) {
      long bytes = Math.min(STAGE_BYTES, from.byteSize() - offset);
      Stage stage = stage();
      copy(from.asSlice(offset, bytes), stage.memory.segment());
      block.upload(target.at(offset, bytes), stage.memory, 0, bytes, stream);
      stage.copied.record(stream);
      piece.arrived(offset, bytes);
    }
  }

  /** By all processors where it is much: one thread is slower than the bus. */
  private static void copy(MemorySegment from, MemorySegment to) {
    long bytes = from.byteSize();
    if (bytes <= PART_BYTES) {
      MemorySegment.copy(from, 0, to, 0, bytes);
      return;
    }
    IntStream.range(0, Math.toIntExact(Math.ceilDiv(bytes, PART_BYTES)))
        .parallel()
        .forEach(
            i -> {
              long at = (long) i * PART_BYTES;
              MemorySegment.copy(from, at, to, at, Math.min(PART_BYTES, bytes - at));
            });
  }

  /** Fetches bytes; waits for them. */
  void download(long address, MemorySegment to) {
    beforeCopies.run();
    for (long offset = 0; offset < to.byteSize(); offset += STAGE_BYTES) {
      long bytes = Math.min(STAGE_BYTES, to.byteSize() - offset);
      Stage stage = stage();
      block.download(address + offset, stage.memory, 0, bytes, stream);
      stream.synchronize();
      MemorySegment.copy(stage.memory.segment(), 0, to, offset, bytes);
    }
  }

  private Stage stage() {
    Stage stage = stages.get(next);
    next = (next + 1) % stages.size();
    stage.copied.synchronize();
    return stage;
  }

  @Override
  public void close() throws CudaException {
    for (Stage stage : stages) {
      stage.copied.close();
      stage.memory.close();
    }
    block.close();
  }
}
