"""Weights of 2 to 8 bits with 16-bit activations: the weights are decoded in registers, next to the tensor cores."""

from qmeter_native.kernels.weight_only.config import candidate_configs
from qmeter_native.kernels.weight_only.dequantize import dequantize_kernel
from qmeter_native.kernels.weight_only.gemm import weight_only_gemm
from qmeter_native.kernels.weight_only.linear import weight_only_linear
from qmeter_native.kernels.weight_only.tensor import WeightOnlyTensor

__all__ = ["WeightOnlyTensor", "candidate_configs", "dequantize_kernel", "weight_only_gemm", "weight_only_linear"]
