package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.backend.Tensor;
import dev.millrace.kernels.ActivationKernels;
import dev.millrace.kernels.BeginKernels;
import dev.millrace.kernels.NormKernels;
import dev.millrace.kernels.Stream;

/**
 * Operations of a {@link CudaBackend} that go by one row at a time: embedding, norms, activation,
 * sums. Where FP8 layers read the result it is rounded at once. Owns nothing.
 */
record CudaRows(
    NormKernels norms,
    ActivationKernels activations,
    BeginKernels beginnings,
    CudaFp8 fp8,
    Operands operands,
    Stream stream) {
  /** See {@link Backend#embed}. */
  void embed(CudaStep step, CudaWeight table, Tensor out) {
    if (table.quantization() != null) {
      throw new IllegalArgumentException("an embedding table of FP8 is to be widened first");
    }
    CudaStep.Embedding embedding = new CudaStep.Embedding(table, operands.contiguous(out));
    if (step.recorded()) {
      step.leave(embedding);
    } else {
      beginnings.embed(embedding.of(step), step.tokens(), stream);
    }
  }

  /** See {@link Backend#rmsNorm}. */
  void rmsNorm(Tensor x, int rows, Tensor weight, float epsilon, Tensor out) {
    if (rows > 0 && out instanceof CudaInput input) {
      fp8.kernels()
          .rmsNorm(
              operands.contiguous(x).address(),
              operands.floats(weight).address(),
              fp8.begin(input, rows),
              rows,
              x.columns(),
              epsilon,
              stream);
    } else if (rows > 0) {
      norms.rmsNorm(
          operands.contiguous(x).address(),
          operands.floats(weight).address(),
          operands.contiguous(out).address(),
          rows,
          x.columns(),
          epsilon,
          stream);
    }
  }

  /** See {@link Backend#addRmsNorm}. */
  void addRmsNorm(Tensor x, Tensor y, int rows, Tensor weight, float epsilon, Tensor out) {
    if (rows > 0 && out instanceof CudaInput input) {
      long factors = fp8.take(rows, (CudaTensor) y);
      fp8.kernels()
          .addRmsNorm(
              operands.contiguous(x).address(),
              operands.contiguous(y).address(),
              factors,
              operands.floats(weight).address(),
              fp8.begin(input, rows),
              rows,
              x.columns(),
              epsilon,
              stream);
    } else if (rows > 0) {
      norms.addRmsNorm(
          operands.contiguous(x).address(),
          operands.contiguous(y).address(),
          operands.floats(weight).address(),
          operands.contiguous(out).address(),
          rows,
          x.columns(),
          epsilon,
          stream);
    }
  }

  /** See {@link Backend#siluMul}. */
  void siluMul(Tensor gate, Tensor up, int rows, Tensor out) {
    if (out instanceof CudaInput input) {
      long factors = fp8.take(rows, (CudaTensor) gate, (CudaTensor) up);
      fp8.kernels()
          .siluMul(
              operands.halves(gate).asRows(),
              operands.halves(up).asRows(),
              factors,
              fp8.begin(input, rows),
              rows,
              gate.columns(),
              stream);
      return;
    }
    activations.siluMul(
        operands.halves(gate).asRows(),
        operands.halves(up).asRows(),
        operands.halves(out).asRows(),
        rows,
        gate.columns(),
        stream);
  }

  /** See {@link Backend#add}. */
  void add(Tensor x, Tensor y, int rows) {
    activations.add(
        operands.contiguous(x).address(),
        operands.contiguous(y).address(),
        rows,
        x.columns(),
        stream);
  }

  /** See {@link Backend#logitRows}. */
  void logitRows(CudaStep s, Tensor x, Tensor out) {
    if (s.logitRows() > 0) {
      activations.gatherRows(
          operands.contiguous(x).address(),
          s.arrays.logitRows(),
          operands.contiguous(out).address(),
          s.logitRows(),
          x.columns(),
          stream);
    }
  }

  /** out += bias, in each row. */
  void addBias(Tensor out, int rows, Tensor bias) {
    activations.addBias(
        operands.halves(out).asRows(),
        operands.floats(bias).address(),
        rows,
        out.columns(),
        stream);
  }
}
