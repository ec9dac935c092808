package dev.millrace.inference.backend.cuda;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.kernels.Device;
import dev.millrace.kernels.DeviceMemory;
import dev.millrace.kernels.Graph;
import dev.millrace.kernels.MemsetNodes;
import dev.millrace.kernels.PinnedMemory;
import dev.millrace.kernels.Stream;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import org.junit.jupiter.api.Test;

/** Needs a GPU: graphs in which kernels stand where memsets were recorded. */
class MemsetNodesTest {
  private static final int ROOM = 4096;
  private static final int[] SIZES = {1, 4, 257, 2000};

  @Test
  void shouldPutKernelsInThePlaceOfMemsetsInTheirOrder() {
    Gpu.require();
    try (Device device = Device.open(0)) {
      device.makeCurrent();
      try (Stream stream = new Stream();
          DeviceMemory memory = new DeviceMemory(ROOM);
          PinnedMemory host = new PinnedMemory(ROOM);
          MemsetNodes memsets = new MemsetNodes();
          Graph graph = Graph.record(stream, memsets, () -> fill(memory, stream))) {
        assertThat(memsets.replaced()).isEqualTo(2L * SIZES.length);
        host.segment().fill((byte) 3);
        memory.upload(memory.address(), host, 0, ROOM, stream);
        graph.launch(stream);
        graph.launch(stream);
        memory.download(memory.address(), host, 0, ROOM, stream);
        stream.synchronize();
        assertThat(host.segment().toArray(ValueLayout.JAVA_BYTE)).isEqualTo(filled());
      }
    }
  }

  /** Each stretch twice, so that an order that is not kept shows, with a byte between. */
  private static void fill(DeviceMemory memory, Stream stream) {
    long at = memory.address();
    for (int size : SIZES) {
      memory.fill(at, 9, size, stream);
      memory.fill(at, 5, size, stream);
      at += size + 1;
    }
  }

  private static byte[] filled() {
    byte[] all = new byte[ROOM];
    Arrays.fill(all, (byte) 3);
    int at = 0;
    for (int size : SIZES) {
      Arrays.fill(all, at, at + size, (byte) 5);
      at += size + 1;
    }
    return all;
  }
}
