package dev.millrace.topology.local;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.BindException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ThreadLocalRandom;

/** Free TCP ports on loopback. */
public final class Ports {
  private Ports() {}

  private static final int LOWEST = 15_000;
  private static final int HIGHEST = 32_000;
  private static final int TRIES = 100;

  private static ServerSocket listen() throws IOException {
    for (int i = 0; i < TRIES; i++) {
      try {
        int port = ThreadLocalRandom.current().nextInt(LOWEST, HIGHEST);
        return new ServerSocket(port, 1, InetAddress.getLoopbackAddress());
      } catch (BindException e) {
        // Somebody listens there: another one.
      }
    }
    return new ServerSocket(0, 1, InetAddress.getLoopbackAddress());
  }

  /**
   * Ports that nobody listened on a moment ago, each different. Another process may still take one
   * before it is used; the servers here then fail to start with a message that names the port. They
   * lie below the range from which systems take the near ends of connections: there a client that
   * looks for a server which is being restarted may itself be given the server's port.
   */
  public static int[] free(int count) {
    List<ServerSocket> open = new ArrayList<>();
    try {
      int[] ports = new int[count];
      for (int i = 0; i < count; i++) {
        // All sockets stay open until the last port is known, so that none comes twice.
        ServerSocket socket = listen();
        open.add(socket);
        ports[i] = socket.getLocalPort();
      }
      return ports;
    } catch (IOException e) {
      throw new UncheckedIOException("no free port on loopback", e);
    } finally {
      for (ServerSocket socket : open) {
        try {
          socket.close();
        } catch (IOException e) {
          throw new UncheckedIOException(e);
        }
      }
    }
  }
}
