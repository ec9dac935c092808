package dev.millrace.topology.cli;

import dev.millrace.topology.Environment;
import dev.millrace.topology.bundle.Bundle;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** {@code millrace bundle}. */
@Command(
    name = "bundle",
    description = {
      "Makes one archive that runs on a Linux machine (x86-64) without Java and without a network:",
      "unpack it there and start ./millrace in it. It holds no schema registry."
    })
@SuppressWarnings("NullAway.Init")
public final class BundleCommand implements Callable<Integer> {
  @Option(
      names = "--out",
      paramLabel = "FILE",
      defaultValue = "millrace.tar.xz",
      description = "The archive: .tar.xz, .tar.zst or .tar.gz (default: ${DEFAULT-VALUE}).")
  private Path out;

  @Option(
      names = "--model",
      paramLabel = "DIR",
      description = "A checkpoint to put in, where the commands find it by themselves.")
  private @Nullable Path model;

  @Spec private CommandSpec spec;

  @Override
  public Integer call() {
    if (Environment.bundled()) {
      throw new Failures.CommandFailedException(
          "this is a bundle: make another one where the project is built from its sources");
    }
    if (model != null && !Files.isDirectory(model)) {
      throw new Failures.CommandFailedException("there is no folder " + model);
    }
    long start = System.nanoTime();
    Bundle bundle =
        new Bundle(
            Environment.home(), Environment.classPath(), Environment.javaHome(), DemoCommand.MODEL);
    Bundle.Result made = bundle.write(out, model);
    new Screen(spec.commandLine().getOut())
        .line(
            "%s: %.1f MiB, %d libraries, in %.0f s",
            made.archive(),
            made.bytes() / (double) (1 << 20),
            made.libraries().size(),
            (System.nanoTime() - start) / 1e9);
    return 0;
  }
}
