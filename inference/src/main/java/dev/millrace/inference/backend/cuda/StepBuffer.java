package dev.millrace.inference.backend.cuda;

import dev.millrace.kernels.Event;
import dev.millrace.kernels.PinnedMemory;
import dev.millrace.kernels.Stream;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;

/**
 * What one step sends to the GPU and gets back, in pinned memory and at the same offsets on the
 * device. Used for one step in three; it grows to the largest step it has seen.
 */
final class StepBuffer implements AutoCloseable {
  private static final long CHUNK_BYTES = 2 << 20;
  private static final int ALIGNMENT = 16;

  private final GpuMemory memory;
  private final Stream stream;
  private final Event end;
  private final List<Chunk> chunks = new ArrayList<>();
  private int current;
  private boolean inUse;

  /** The event stands behind all that was given to the device, and it got there. */
  private boolean marked;

  private boolean reached;

  private static final class Chunk {
    final PinnedMemory host;
    final long device;
    final long bytes;
    long used;
    long sent;

    Chunk(PinnedMemory host, long device, long bytes) {
      this.host = host;
      this.device = device;
      this.bytes = bytes;
    }
  }

  /** A stretch of both memories. */
  final class Region {
    private final Chunk chunk;
    private final long offset;
    private final long bytes;

    private Region(Chunk chunk, long offset, long bytes) {
      this.chunk = chunk;
      this.offset = offset;
      this.bytes = bytes;
    }

    /** On the device. */
    long address() {
      return chunk.device + offset;
    }

    /** On the host. */
    MemorySegment host() {
      return chunk.host.segment().asSlice(offset, bytes);
    }

    /** On the host, where kernels write what the host is to have without a copy. */
    long hostAddress() {
      return chunk.host.address(offset, bytes);
    }

    /**
     * On the host, for a kernel that brings it to somewhere else on the device; nothing was put
     * before it.
     */
    long lend() {
      chunk.sent = chunk.used;
      return hostAddress();
    }

    /** Copies it to somewhere else on the device instead, at once; nothing was put before it. */
    void sendTo(long address) {
      memory.block().upload(address, chunk.host, offset, bytes, stream);
      chunk.sent = chunk.used;
    }

    /** Fetches what the device left there; it is on the host once the stream got past this. */
    void fetch() {
      memory.block().download(address(), chunk.host, offset, bytes, stream);
    }
  }

  /**
   * @param end how the host waits for the device; of whoever made it
   */
  StepBuffer(GpuMemory memory, Stream stream, Event end) {
    this.memory = memory;
    this.stream = stream;
    this.end = end;
    chunks.add(chunk(CHUNK_BYTES));
  }

  /** Empties it, when the step that used it last is done. */
  void begin() {
    if (inUse && !reached) {
      end.synchronize();
    }
    inUse = true;
    marked = false;
    reached = false;
    current = 0;
    for (Chunk chunk : chunks) {
      chunk.used = 0;
      chunk.sent = 0;
    }
  }

  /** Nothing more is given to the device that uses this. */
  void end() {
    if (inUse && !marked) {
      mark();
    }
  }

  /** What the step has fetched so far can be waited for. */
  void mark() {
    end.record(stream);
    marked = true;
  }

  /** Waits for what was fetched before the last {@link #mark}. */
  void await() {
    end.synchronize();
    reached = marked;
  }

  /** Numbers for the device, there before what is launched after the next {@link #send}. */
  long put(int[] values, int count) {
    Region region = reserve((long) count * Integer.BYTES);
    MemorySegment.copy(values, 0, region.host(), ValueLayout.JAVA_INT, 0, count);
    return region.address();
  }

  /** Room for numbers or results. */
  Region reserve(long bytes) {
    marked = false;
    while (true) {
      Chunk chunk = chunks.get(current);
      if (chunk.used + bytes <= chunk.bytes) {
        Region region = new Region(chunk, chunk.used, bytes);
        chunk.used = Math.ceilDiv(chunk.used + bytes, ALIGNMENT) * ALIGNMENT;
        return region;
      }
      if (++current == chunks.size()) {
        chunks.add(chunk(Math.max(CHUNK_BYTES, Long.highestOneBit(bytes) * 2)));
      }
    }
  }

  /** Copies to the device what was put since the last time. */
  void send() {
    for (Chunk chunk : chunks) {
      if (chunk.used > chunk.sent) {
        memory
            .block()
            .upload(
                chunk.device + chunk.sent, chunk.host, chunk.sent, chunk.used - chunk.sent, stream);
        chunk.sent = chunk.used;
      }
    }
  }

  private Chunk chunk(long bytes) {
    return new Chunk(new PinnedMemory(bytes), memory.allocate("a step's tables", bytes), bytes);
  }

  @Override
  public void close() {
    chunks.forEach(c -> c.host.close());
  }
}
