package dev.millrace.tests;

import dev.millrace.inference.api.Generator;
import dev.millrace.inference.device.DeviceOptions;
import dev.millrace.inference.engine.EngineConfig;
import dev.millrace.inference.pipeline.LlmGenerator;
import dev.millrace.kernels.ConvertKernels;
import dev.millrace.kernels.Device;
import dev.millrace.kernels.Stream;
import dev.millrace.topology.WorkerConfig;
import dev.millrace.topology.cli.WorkerRun;
import java.io.IOException;
import java.nio.file.Path;

/**
 * A whole worker process on a GPU, as {@code millrace worker} is one, in whose context a kernel
 * traps once the engine has generated some tokens.
 */
public final class TrappedWorker {
  /** Begins the line that tells of the trap, with the time in milliseconds. */
  static final String TRAP = "the trap is set at ";

  /** No memory of anybody lies there. */
  private static final long NOWHERE = 16;

  private static final long NUMBERS = 1 << 20;

  private TrappedWorker() {}

  /** Takes the settings file and after how many tokens the kernel is to trap. */
  public static void main(String[] args) throws IOException {
    WorkerConfig config = WorkerConfig.load(Path.of(args[0]));
    WorkerConfig.EngineSettings engine = config.engine();
    Generator generator =
        LlmGenerator.open(
            config.modelPath(),
            EngineConfig.defaults()
                .withMaxSequences(engine.maxSequences())
                .withTokenBudget(engine.tokenBudget()),
            DeviceOptions.of(engine.device()).withInvariant(engine.invariant()),
            LlmGenerator.Options.of(config.modelName()));
    long tokens = generator.status().generated() + Long.parseLong(args[1]);
    Thread trap = new Thread(() -> trap(generator, tokens), "trap");
    trap.setDaemon(true);
    trap.start();
    System.exit(WorkerRun.run(config, generator));
  }

  private static void trap(Generator generator, long tokens) {
    while (generator.status().generated() < tokens) {
      Thread.onSpinWait();
    }
    // The process's one context: that of the engine.
    Device device = Device.open(0);
    device.makeCurrent();
    Stream stream = new Stream();
    ConvertKernels kernels = new ConvertKernels();
    // Before it does: after that the process may end at any time.
    System.out.println(TRAP + System.currentTimeMillis());
    kernels.random(NOWHERE, NUMBERS, 1, 1, stream);
  }
}
