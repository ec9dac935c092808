package dev.millrace.inference.device;

/**
 * Where and in what formats to run a model. Formats are named as by people: {@code bf16}, {@code
 * fp8}; {@code auto} leaves them to checkpoint and backend.
 *
 * @param backend one of {@link Devices#NAMES}
 * @param device number of the card, from 0; the CPU is 0
 * @param dtype format of the weights
 * @param kvDtype format of keys and values
 * @param threads of the CPU backend, at least 1
 * @param kvBlocks blocks of keys and values; 0: what the backend thinks sensible
 * @param warmUp whether opening returns only when the first step will be as fast as the rest
 */
public record DeviceOptions(
    String backend,
    int device,
    String dtype,
    String kvDtype,
    int threads,
    int kvBlocks,
    boolean warmUp) {
  /** Leaves a format to checkpoint and backend. */
  public static final String AUTO = "auto";

  public DeviceOptions {
    if (device < 0) {
      throw new UnsupportedOperationException("device is " + device + ", it must be 0 or more");
    }
  }

  /** The CPU with all its cores, formats as they are, warm. */
  public static DeviceOptions cpu() {
    return new DeviceOptions(
        "cpu", 0, AUTO, AUTO, Runtime.getRuntime().availableProcessors(), 0, true);
  }

  public DeviceOptions withFormats(String weights, String keysAndValues) {
    return new DeviceOptions(backend, device, weights, keysAndValues, threads, kvBlocks, warmUp);
  }

  public DeviceOptions withKvBlocks(int blocks) {
    return new DeviceOptions(backend, device, dtype, kvDtype, threads, blocks, warmUp);
  }

  public DeviceOptions withThreads(int count) {
    return new DeviceOptions(backend, device, dtype, kvDtype, count, kvBlocks, warmUp);
  }

  public DeviceOptions withWarmUp(boolean warm) {
    return new DeviceOptions(backend, device, dtype, kvDtype, threads, kvBlocks, warm);
  }
}
