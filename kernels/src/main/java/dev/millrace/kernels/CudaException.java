package dev.millrace.kernels;

import jcuda.driver.CUresult;
import org.jspecify.annotations.Nullable;

/** A call of CUDA or of one of its libraries that failed, or CUDA that is not there. */
public final class CudaException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  private final boolean sticky;

  CudaException(String message) {
    this(message, null, false);
  }

  CudaException(String message, @Nullable Throwable cause) {
    this(message, cause, false);
  }

  private CudaException(String message, @Nullable Throwable cause, boolean sticky) {
    super(message, cause);
    this.sticky = sticky;
  }

  /**
   * Whether the context is lost: every later call fails too, and only a new process can use the
   * device again.
   */
  public boolean sticky() {
    return sticky;
  }

  /**
   * Returns normally if a driver call did.
   *
   * @param call the driver's function
   * @param arguments what it was called with, for the message
   */
  static void check(int result, String call, Object... arguments) {
    if (result == CUresult.CUDA_SUCCESS) {
      return;
    }
    StringBuilder message = new StringBuilder(call).append('(');
    for (int i = 0; i < arguments.length; i++) {
      message.append(i == 0 ? "" : ", ").append(arguments[i]);
    }
    message.append(") failed: ").append(CUresult.stringFor(result)).append(" (").append(result);
    throw new CudaException(
        message.append(')').append(advice(result)).toString(), null, lost(result));
  }

  /** The codes after which the driver's documentation says that the process must be ended. */
  private static boolean lost(int result) {
    return switch (result) {
      case CUresult.CUDA_ERROR_ECC_UNCORRECTABLE,
          CUresult.CUDA_ERROR_ILLEGAL_ADDRESS,
          CUresult.CUDA_ERROR_LAUNCH_TIMEOUT,
          CUresult.CUDA_ERROR_CONTEXT_IS_DESTROYED,
          CUresult.CUDA_ERROR_ASSERT,
          CUresult.CUDA_ERROR_HARDWARE_STACK_ERROR,
          CUresult.CUDA_ERROR_ILLEGAL_INSTRUCTION,
          CUresult.CUDA_ERROR_MISALIGNED_ADDRESS,
          CUresult.CUDA_ERROR_INVALID_ADDRESS_SPACE,
          CUresult.CUDA_ERROR_INVALID_PC,
          CUresult.CUDA_ERROR_LAUNCH_FAILED,
          CUresult.CUDA_ERROR_UNKNOWN ->
          true;
      default -> false;
    };
  }

  private static String advice(int result) {
    if (lost(result)) {
      return ". A kernel or the device broke: this process cannot use the GPU any more and must be"
          + " started anew. The call that reports it need not be the one that caused it";
    }
    return switch (result) {
      case CUresult.CUDA_ERROR_OUT_OF_MEMORY ->
          ". Let other programs go from this GPU, or take a smaller model or another GPU";
      case CUresult.CUDA_ERROR_INVALID_DEVICE -> ". There is no such GPU: count from 0";
      case CUresult.CUDA_ERROR_NO_DEVICE -> ". The driver sees no GPU";
      default -> "";
    };
  }
}
