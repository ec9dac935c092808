package dev.millrace.inference.backend.cuda;

/** Counts that kernels leave at zero, as many as the largest step needed. */
final class Counts {
  private final GpuMemory memory;
  private final Scratch room;
  private int most;

  /**
   * @param what they are for, for messages
   */
  Counts(GpuMemory memory, String what) {
    this.memory = memory;
    this.room = new Scratch(memory, what);
  }

  /** Int [count] on the device, or more. */
  long of(int count) {
    if (count > most) {
      long bytes = (long) count * Integer.BYTES;
      memory.zero(room.of(bytes), bytes);
      most = count;
    }
    return room.address();
  }
}
