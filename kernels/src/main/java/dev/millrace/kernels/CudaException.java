package dev.millrace.kernels;

import jcuda.driver.CUresult;
import org.jspecify.annotations.Nullable;

/** A call of the CUDA driver that failed, or CUDA that is not there. */
public final class CudaException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  CudaException(String message) {
    super(message);
  }

  CudaException(String message, @Nullable Throwable cause) {
    super(message, cause);
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
    throw new CudaException(
        message + ") failed: " + CUresult.stringFor(result) + " (" + result + ")");
  }
}
