package dev.millrace.topology.local;

import java.io.IOException;
import java.lang.reflect.InvocationTargetException;
import java.util.Arrays;

/**
 * Runs another class's {@code main} and halts as soon as standard input ends. The starter holds the
 * other end of that pipe, and the system closes it however the starter dies: no child outlives its
 * parent, not even after {@code kill -9}.
 */
public final class ParentWatch {
  private ParentWatch() {}

  /** The first argument is the class to run, the rest are its arguments. */
  public static void main(String[] args) throws Throwable {
    Thread watch = new Thread(ParentWatch::haltAtEndOfInput, "parent-watch");
    watch.setDaemon(true);
    watch.start();
    try {
      Class.forName(args[0])
          .getMethod("main", String[].class)
          .invoke(null, (Object) Arrays.copyOfRange(args, 1, args.length));
    } catch (InvocationTargetException e) {
      throw e.getCause();
    }
  }

  private static void haltAtEndOfInput() {
    try {
      while (System.in.read() >= 0) {
        // Nothing is sent; whatever comes is not for us.
      }
    } catch (IOException e) {
      // A broken pipe is the end as well.
    }
    Runtime.getRuntime().halt(1);
  }
}
