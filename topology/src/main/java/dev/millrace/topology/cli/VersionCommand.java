package dev.millrace.topology.cli;

import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Spec;

/** {@code millrace version}. */
@Command(name = "version", description = "Prints the versions of Millrace, Kafka and Java.")
@SuppressWarnings("NullAway.Init")
public final class VersionCommand implements Runnable {
  @Spec private CommandSpec spec;

  @Override
  public void run() {
    String own = VersionCommand.class.getPackage().getImplementationVersion();
    CommandLine line = spec.commandLine();
    line.getOut().println("Millrace " + (own == null ? "built from sources" : own));
    line.getOut().println("Kafka    " + org.apache.kafka.common.utils.AppInfoParser.getVersion());
    line.getOut().println("Java     " + Runtime.version());
    line.getOut().flush();
  }
}
