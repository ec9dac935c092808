package dev.millrace.inference.backend.cuda;

/** Memory for what a step makes on the way, as large as the largest step needed it. */
final class Scratch {
  private final GpuMemory memory;
  private final String what;
  private long address;
  private long bytes;

  /**
   * @param what it is for, for messages
   */
  Scratch(GpuMemory memory, String what) {
    this.memory = memory;
    this.what = what;
  }

  /** At least so many bytes; what was there is lost if it has to grow. */
  long of(long needed) {
    if (needed > bytes) {
      if (bytes > 0) {
        memory.free(address);
        bytes = 0;
      }
      address = memory.allocate(what, needed);
      bytes = needed;
    }
    return address;
  }

  /** Where it is. */
  long address() {
    return address;
  }
}
