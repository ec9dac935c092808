package dev.millrace.topology.cli;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.millrace.inference.bench.Ceilings;
import dev.millrace.inference.bench.EngineBench;
import dev.millrace.inference.bench.EngineReport;
import dev.millrace.inference.bench.Load;
import dev.millrace.inference.model.ModelRunner;
import java.util.ArrayList;
import java.util.List;
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

  @Option(
      names = "--json",
      description = "Print one JSON object, or a list of one for each shape, and nothing else.")
  private boolean json;

  @Spec private CommandSpec spec;

  @Override
  public Integer call() throws InterruptedException {
    Logs.errorsOnly();
    Screen screen = new Screen(spec.commandLine().getOut());
    List<Load> loads = options.loads(model.seed(), waiting);
    try (ModelRunner runner = model.open(options.blocks(), options.engine())) {
      Ceilings ceilings = Ceilings.measure(runner.gauge(), runner.footprint().format());
      List<EngineBench> benches = loads.stream().map(l -> bench(runner, l, ceilings)).toList();
      List<ObjectNode> results = new ArrayList<>();
      if (!json) {
        EngineTable.head(screen, model, runner);
      }
      for (int i = 0; i < benches.size(); i++) {
        EngineReport report = benches.get(i).run();
        if (json) {
          results.add(EngineTable.json(model, runner, loads.get(i), report));
        } else {
          EngineTable.load(screen, loads.get(i));
          EngineTable.print(screen, report);
        }
      }
      if (json) {
        screen.line("%s", results.size() == 1 ? results.getFirst() : results);
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
