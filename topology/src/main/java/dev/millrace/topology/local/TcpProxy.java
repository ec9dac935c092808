package dev.millrace.topology.local;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.time.Duration;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/**
 * A port on loopback that passes everything on to another port, until it is told to pass it on
 * slowly or not at all. Whoever opens it closes it; every method is safe for several threads.
 */
public final class TcpProxy implements AutoCloseable {
  private static final int BUFFER = 16 * 1024;
  private static final int CONNECT_MS = 2_000;
  private static final int LOOK_MS = 20;

  private final ServerSocket server;
  private final Set<Socket> open = ConcurrentHashMap.newKeySet();
  private volatile int target = -1;
  private volatile boolean cut;
  private volatile long delayMs;

  private TcpProxy(ServerSocket server) {
    this.server = server;
  }

  /** Listens on a free port; refuses to pass anything on before {@link #to} is called. */
  public static TcpProxy open() {
    try {
      TcpProxy proxy = new TcpProxy(new ServerSocket(0, 50, InetAddress.getLoopbackAddress()));
      Thread.ofVirtual().name("proxy-" + proxy.port()).start(proxy::accept);
      return proxy;
    } catch (IOException e) {
      throw new UncheckedIOException("no free port on loopback", e);
    }
  }

  public int port() {
    return server.getLocalPort();
  }

  /** Where new connections lead: a port on loopback. */
  public void to(int port) {
    target = port;
  }

  /** Connections stay open and nothing comes through any more, as when a cable is pulled. */
  public void cut() {
    cut = true;
  }

  /** Passes on every piece only after this time; zero is as fast as it can. */
  public void delay(Duration time) {
    delayMs = time.toMillis();
  }

  /** Ends what {@link #cut} began; connections that were cut are lost. */
  public void mend() {
    if (cut) {
      open.forEach(TcpProxy::shut);
      cut = false;
    }
  }

  private void accept() {
    while (!server.isClosed()) {
      try {
        Socket client = server.accept();
        open.add(client);
        Thread.ofVirtual().start(() -> connect(client));
      } catch (IOException e) {
        // Closed, or the other side was gone before it was accepted.
      }
    }
  }

  private void connect(Socket client) {
    Socket onward = new Socket();
    try {
      awaitFlow(client);
      onward.connect(new InetSocketAddress("127.0.0.1", target), CONNECT_MS);
      client.setTcpNoDelay(true);
      onward.setTcpNoDelay(true);
      open.add(onward);
      Thread.ofVirtual().start(() -> pump(client, onward));
      pump(onward, client);
    } catch (IOException | IllegalArgumentException e) {
      shut(client);
      shut(onward);
    }
    open.remove(client);
    open.remove(onward);
  }

  private void pump(Socket from, Socket to) {
    byte[] buffer = new byte[BUFFER];
    try {
      InputStream in = from.getInputStream();
      OutputStream out = to.getOutputStream();
      for (int read = in.read(buffer); read >= 0; read = in.read(buffer)) {
        awaitFlow(from);
        if (delayMs > 0) {
          sleep(delayMs);
        }
        out.write(buffer, 0, read);
      }
    } catch (IOException e) {
      // One of the two ends is gone: so is the other, below.
    }
    shut(from);
    shut(to);
  }

  private void awaitFlow(Socket socket) throws IOException {
    while (cut) {
      sleep(LOOK_MS);
      if (socket.isClosed()) {
        throw new IOException("cut");
      }
    }
    if (socket.isClosed()) {
      throw new IOException("cut");
    }
  }

  private static void sleep(long millis) throws IOException {
    try {
      Thread.sleep(millis);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IOException("interrupted", e);
    }
  }

  private static void shut(Socket socket) {
    try {
      socket.close();
    } catch (IOException e) {
      // It is closed as far as it can be.
    }
  }

  @Override
  public void close() {
    try {
      server.close();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    open.forEach(TcpProxy::shut);
  }
}
