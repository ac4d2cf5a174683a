"""INT8 and FP8 weights times INT8 and FP8 activations (W8A8): scales by tensor, channel, token, or block of 128."""

from qmeter_native.kernels.scaled.gemm import scaled_gemm
from qmeter_native.kernels.scaled.reference import scaled_linear_reference
from qmeter_native.kernels.scaled.tensor import ScaledTensor
from qmeter_native.kernels.scaled.tiles import candidate_configs

__all__ = ["ScaledTensor", "candidate_configs", "scaled_gemm", "scaled_linear_reference"]
