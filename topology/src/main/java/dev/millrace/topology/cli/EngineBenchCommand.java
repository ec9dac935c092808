package dev.millrace.topology.cli;

import dev.millrace.inference.bench.Ceilings;
import dev.millrace.inference.bench.EngineBench;
import dev.millrace.inference.bench.EngineReport;
import dev.millrace.inference.bench.Load;
import dev.millrace.inference.model.ModelRunner;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** {@code millrace bench engine}. */
@Command(
    name = "engine",
    description = {
      "Serves made-up requests on the engine alone: tokens drawn evenly from the vocabulary,",
      "answers of one length. Says what share of the device's ceilings, which it measures first,",
      "was reached. A token a second is a generated one."
    })
@SuppressWarnings("NullAway.Init")
public final class EngineBenchCommand implements Callable<Integer> {
  @Mixin private ModelOptions model;
  @Mixin private LoadOptions options;

  @Option(
      names = "--waiting",
      paramLabel = "N",
      defaultValue = "0",
      description = {
        "So many more requests wait behind those that are measured: what a queue costs the host.",
        "They would run where the engine has room: with it, --requests is --max-sequences or more."
      })
  private int waiting;

  @Option(names = "--json", description = "Print one JSON object and nothing else.")
  private boolean json;

  @Spec private CommandSpec spec;

  @Override
  public Integer call() throws InterruptedException {
    Logs.errorsOnly();
    Screen screen = new Screen(spec.commandLine().getOut());
    Load load = options.load(model.seed(), waiting);
    try (ModelRunner runner = model.open(options.blocks(), options.engine())) {
      Ceilings ceilings = Ceilings.measure(runner.gauge(), runner.footprint().format());
      EngineReport report = bench(runner, load, ceilings).run();
      if (json) {
        screen.line("%s", EngineTable.json(model, runner, load, report));
      } else {
        EngineTable.head(screen, model, runner, load);
        EngineTable.print(screen, report);
      }
    }
    return 0;
  }

  private EngineBench bench(ModelRunner runner, Load load, Ceilings ceilings) {
    try {
      return new EngineBench(runner, options.engine(), load, ceilings);
    } catch (IllegalArgumentException e) {
      throw new Failures.CommandFailedException(Failures.describe(e), e);
    }
  }
}
