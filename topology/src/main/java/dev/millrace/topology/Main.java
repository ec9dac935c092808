package dev.millrace.topology;

import dev.millrace.topology.chaos.ChaosCommand;
import dev.millrace.topology.cli.BenchCommand;
import dev.millrace.topology.cli.BundleCommand;
import dev.millrace.topology.cli.DeadLettersCommand;
import dev.millrace.topology.cli.DemoCommand;
import dev.millrace.topology.cli.Failures;
import dev.millrace.topology.cli.SendCommand;
import dev.millrace.topology.cli.SettingsCommand;
import dev.millrace.topology.cli.TopicsCommand;
import dev.millrace.topology.cli.VersionCommand;
import dev.millrace.topology.cli.WorkerCommand;
import picocli.CommandLine;
import picocli.CommandLine.Command;

/** The command line. */
@Command(
    name = "millrace",
    description = "Answers prompt events from Kafka with its own LLM engine.",
    subcommands = {
      DemoCommand.class,
      SendCommand.class,
      WorkerCommand.class,
      TopicsCommand.class,
      DeadLettersCommand.class,
      SettingsCommand.class,
      BenchCommand.class,
      ChaosCommand.class,
      BundleCommand.class,
      VersionCommand.class,
      CommandLine.HelpCommand.class
    },
    synopsisSubcommandLabel = "COMMAND",
    exitCodeListHeading = "%nExit codes:%n",
    exitCodeList = {
      "0:done",
      "1:failed; the message on standard error says why",
      "2:the command line is wrong",
      "3:a worker ended with prompts under way, which the next worker resumes",
      "4:the settings are wrong; the message says where, and starting again does not help"
    },
    footer = {"", "millrace help COMMAND says more about a command."})
public final class Main {
  private Main() {}

  /** Runs the command and ends the process with its exit code. */
  public static void main(String[] args) {
    System.exit(commandLine().execute(args));
  }

  /** The parser with all commands, as {@link #main} uses it. */
  public static CommandLine commandLine() {
    return new CommandLine(new Main())
        .setExecutionStrategy(new CommandLine.RunLast())
        .setExecutionExceptionHandler(Failures::report)
        .setCaseInsensitiveEnumValuesAllowed(true);
  }
}
