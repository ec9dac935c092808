package dev.millrace.kernels;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import jcuda.Pointer;
import jcuda.driver.CUdeviceptr;
import jcuda.driver.CUstream;
import jcuda.driver.JCudaDriver;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.TestInstance;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** Each kernel against the same arithmetic in Java, in double. */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
class KernelsOnDeviceTest {
  private static final long SEED = 20_251;
  private static final float EPSILON = 1e-5f;

  private final List<CUdeviceptr> allocated = new ArrayList<>();
  private final CUstream stream = new CUstream();
  private @Nullable Device device;

  /** Before each, so that each counts as skipped where there is no GPU. */
  @BeforeEach
  void open() {
    assumeTrue(Device.count() > 0, "this machine has no GPU with a CUDA driver");
    assumeTrue(
        KernelsOnDeviceTest.class.getResource("norm.fatbin") != null,
        "this build has no kernels: nvcc was not found");
    if (device != null) {
      return;
    }
    device = Device.open(0);
    CudaException.check(JCudaDriver.cuStreamCreate(stream, 0), "cuStreamCreate", 0);
  }

  @AfterAll
  void close() {
    if (device != null) {
      allocated.forEach(p -> CudaException.check(JCudaDriver.cuMemFree(p), "cuMemFree"));
      CudaException.check(JCudaDriver.cuStreamDestroy(stream), "cuStreamDestroy");
      device.close();
    }
  }

  static Stream<Arguments> typesAndShapes() {
    return Stream.of(ElementType.values())
        .flatMap(
            type ->
                Stream.of(
                        new Shape(1, 1),
                        new Shape(3, 31),
                        new Shape(7, 256),
                        new Shape(2, 4096),
                        new Shape(65, 5000))
                    .map(shape -> Arguments.of(type, shape)));
  }

  @ParameterizedTest(name = "{0} {1}")
  @MethodSource("typesAndShapes")
  void shouldNormalise(ElementType type, Shape shape) {
    float[] x = random(type, shape.count(), 1);
    float[] weight = random(type, shape.dim(), 2);
    CUdeviceptr out = allocate(type, shape.count());
    try (NormKernels kernels = new NormKernels()) {
      kernels.rmsNorm(type, upload(type, x), upload(type, weight), out, shape, EPSILON, stream);
      assertClose(type, download(type, out, x.length), normalised(x, weight, shape));
    }
  }

  @ParameterizedTest(name = "{0} {1}")
  @MethodSource("typesAndShapes")
  void shouldAddAndNormalise(ElementType type, Shape shape) {
    float[] x = random(type, shape.count(), 3);
    float[] y = random(type, shape.count(), 4);
    float[] weight = random(type, shape.dim(), 5);
    float[] sum = new float[x.length];
    for (int i = 0; i < sum.length; i++) {
      sum[i] = rounded(type, x[i] + y[i]);
    }
    CUdeviceptr xOnDevice = upload(type, x);
    CUdeviceptr out = allocate(type, shape.count());
    try (NormKernels kernels = new NormKernels()) {
      kernels.addRmsNorm(
          type, xOnDevice, upload(type, y), upload(type, weight), out, shape, EPSILON, stream);
      assertThat(download(type, xOnDevice, x.length)).as("seed %d", SEED).isEqualTo(sum);
      assertClose(type, download(type, out, x.length), normalised(sum, weight, shape));
    }
  }

  @ParameterizedTest(name = "{0} {1}")
  @MethodSource("typesAndShapes")
  void shouldGateWithSilu(ElementType type, Shape shape) {
    float[] gate = random(type, shape.count(), 6);
    float[] up = random(type, shape.count(), 7);
    double[] expected = new double[gate.length];
    for (int i = 0; i < gate.length; i++) {
      expected[i] = gate[i] / (1 + Math.exp(-gate[i])) * up[i];
    }
    CUdeviceptr gateOnDevice = upload(type, gate);
    try (ActivationKernels kernels = new ActivationKernels()) {
      // In place, as the engine does it.
      kernels.siluMul(type, gateOnDevice, upload(type, up), gateOnDevice, shape, stream);
      assertClose(type, download(type, gateOnDevice, gate.length), expected);
    }
  }

  private static double[] normalised(float[] x, float[] weight, Shape shape) {
    double[] out = new double[x.length];
    for (int row = 0; row < shape.rows(); row++) {
      double squares = 0;
      for (int i = 0; i < shape.dim(); i++) {
        double v = x[row * shape.dim() + i];
        squares += v * v;
      }
      double scale = 1 / Math.sqrt(squares / shape.dim() + EPSILON);
      for (int i = 0; i < shape.dim(); i++) {
        out[row * shape.dim() + i] = x[row * shape.dim() + i] * scale * weight[i];
      }
    }
    return out;
  }

  private static void assertClose(ElementType type, float[] actual, double[] expected) {
    double error = 0;
    double norm = 0;
    for (int i = 0; i < actual.length; i++) {
      error += (actual[i] - expected[i]) * (actual[i] - expected[i]);
      norm += expected[i] * expected[i];
    }
    assertThat(Math.sqrt(error / norm))
        .as("error over norm, seed %d", SEED)
        .isLessThan(type == ElementType.F32 ? 1e-6 : 4e-3);
  }

  private static float[] random(ElementType type, long count, int stretch) {
    SplittableRandom random = new SplittableRandom(SEED + stretch);
    float[] values = new float[Math.toIntExact(count)];
    for (int i = 0; i < values.length; i++) {
      values[i] = rounded(type, (float) random.nextDouble(-4, 4));
    }
    return values;
  }

  /** To the nearest value of the type, ties to even. */
  private static float rounded(ElementType type, float value) {
    return type == ElementType.F32 ? value : Float.intBitsToFloat(bf16(value) << 16);
  }

  private static int bf16(float value) {
    int bits = Float.floatToRawIntBits(value);
    return (bits + 0x7FFF + ((bits >>> 16) & 1)) >>> 16;
  }

  private CUdeviceptr allocate(ElementType type, long count) {
    CUdeviceptr pointer = new CUdeviceptr();
    CudaException.check(
        JCudaDriver.cuMemAlloc(pointer, count * type.bytes()), "cuMemAlloc", count, type);
    allocated.add(pointer);
    return pointer;
  }

  private CUdeviceptr upload(ElementType type, float[] values) {
    ByteBuffer bytes = buffer(type, values.length);
    for (float value : values) {
      if (type == ElementType.F32) {
        bytes.putFloat(value);
      } else {
        bytes.putShort((short) bf16(value));
      }
    }
    CUdeviceptr pointer = allocate(type, values.length);
    CudaException.check(
        JCudaDriver.cuMemcpyHtoD(pointer, Pointer.to(bytes.array()), bytes.capacity()),
        "cuMemcpyHtoD",
        bytes.capacity());
    return pointer;
  }

  private float[] download(ElementType type, CUdeviceptr pointer, int count) {
    ByteBuffer bytes = buffer(type, count);
    CudaException.check(JCudaDriver.cuStreamSynchronize(stream), "cuStreamSynchronize");
    CudaException.check(
        JCudaDriver.cuMemcpyDtoH(Pointer.to(bytes.array()), pointer, bytes.capacity()),
        "cuMemcpyDtoH",
        bytes.capacity());
    float[] values = new float[count];
    for (int i = 0; i < count; i++) {
      values[i] =
          type == ElementType.F32 ? bytes.getFloat() : Float.intBitsToFloat(bytes.getShort() << 16);
    }
    return values;
  }

  private static ByteBuffer buffer(ElementType type, int count) {
    return ByteBuffer.allocate(count * type.bytes()).order(ByteOrder.LITTLE_ENDIAN);
  }
}
