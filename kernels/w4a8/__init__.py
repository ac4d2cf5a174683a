"""4-bit weights times 8-bit activations: QoQ in two levels or by channel (W4A8-INT), and groups of 128 (W4A8-FP)."""

from qmeter_native.kernels.w4a8.gemm import w4a8_gemm
from qmeter_native.kernels.w4a8.reference import w4a8_reference
from qmeter_native.kernels.w4a8.tensor import W4A8Tensor
from qmeter_native.kernels.w4a8.tiles import candidate_configs

__all__ = ["W4A8Tensor", "candidate_configs", "w4a8_gemm", "w4a8_reference"]
