package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.backend.Tensor;
import dev.millrace.inference.backend.cuda.CudaTensor.Type;

/**
 * What kernels read and write: tensors of the type that a kernel takes, whole.
 *
 * @param fp8 whose last result may be left unscaled; whatever it left to do is done before
 */
record Operands(CudaFp8 fp8) {
  CudaTensor halves(Tensor tensor) {
    return typed(tensor, Type.BF16);
  }

  CudaTensor floats(Tensor tensor) {
    return typed(tensor, Type.F32);
  }

  /** Of bfloat16, one row right behind another. */
  CudaTensor contiguous(Tensor tensor) {
    CudaTensor t = halves(tensor);
    if (!t.contiguous()) {
      throw new IllegalArgumentException("this operation takes no tensor that lies beside others");
    }
    return t;
  }

  private CudaTensor typed(Tensor tensor, Type type) {
    fp8.settle();
    CudaTensor t = (CudaTensor) tensor;
    if (t.type() != type) {
      throw new IllegalArgumentException("the tensor holds " + t.type() + ", not " + type);
    }
    return t;
  }
}
