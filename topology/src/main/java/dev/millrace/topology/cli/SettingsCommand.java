package dev.millrace.topology.cli;

import dev.millrace.topology.SettingsPage;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** {@code millrace settings}. */
@Command(
    name = "settings",
    description = "Prints every setting of a worker with its default, as a Markdown table.")
@SuppressWarnings("NullAway.Init")
public final class SettingsCommand implements Callable<Integer> {
  @Spec private CommandSpec spec;

  @Option(
      names = "--write",
      paramLabel = "PAGE",
      description = "Writes the table into this page, between its two marks.")
  private @Nullable Path page;

  @Override
  public Integer call() throws IOException {
    Path target = page;
    if (target == null) {
      spec.commandLine().getOut().print(SettingsPage.table());
      spec.commandLine().getOut().flush();
    } else {
      Files.writeString(target, SettingsPage.update(Files.readString(target)));
    }
    return 0;
  }
}
