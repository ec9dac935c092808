package dev.millrace.topology.cli;

import dev.millrace.topology.ConfigException;
import dev.millrace.topology.StartException;
import org.apache.kafka.common.KafkaException;
import org.jspecify.annotations.Nullable;
import org.slf4j.LoggerFactory;
import picocli.CommandLine;

/** Turns what went wrong into a message for people and an exit code. */
public final class Failures {
  /** Exit code of a command that failed. */
  static final int FAILED = 1;

  /** Exit code of a worker that was told to end and could not finish in time. */
  static final int UNFINISHED = 3;

  /** Exit code of a command whose settings are wrong: starting it again does not help. */
  static final int SETTINGS = 4;

  private Failures() {}

  /** A failure whose message says all that the user needs. */
  public static final class CommandFailedException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    public CommandFailedException(String message) {
      super(message);
    }

    public CommandFailedException(String message, Throwable cause) {
      super(message, cause);
    }
  }

  /** Prints the message to standard error; the stack trace too, where the failure is unforeseen. */
  public static int report(Exception failure, CommandLine command, CommandLine.ParseResult parsed) {
    boolean foreseen =
        failure instanceof CommandFailedException
            || failure instanceof ConfigException
            || failure instanceof StartException
            || failure instanceof PromptsFile.BadFileException
            || failure instanceof IllegalStateException
            || failure instanceof KafkaException;
    command.getErr().println("millrace: " + describe(failure));
    if (foreseen) {
      LoggerFactory.getLogger(Failures.class).debug("the command failed", failure);
    } else {
      failure.printStackTrace(command.getErr());
    }
    command.getErr().flush();
    return failure instanceof ConfigException ? SETTINGS : FAILED;
  }

  /** The message with those of its causes that add something. */
  static String describe(@Nullable Throwable failure) {
    if (failure == null) {
      return "the cause is unknown";
    }
    StringBuilder text = new StringBuilder(message(failure));
    for (Throwable t = failure.getCause(); t != null; t = t.getCause()) {
      String more = message(t);
      if (text.indexOf(more) < 0) {
        text.append(": ").append(more);
      }
    }
    return text.toString();
  }

  private static String message(Throwable failure) {
    String text = failure.getMessage() == null ? failure.toString() : failure.getMessage();
    // Libraries break their lines; a message of ours is one.
    return text.strip().replaceAll("\\s*\\R\\s*", " ");
  }
}
