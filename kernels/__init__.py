"""Triton reference dequant-GEMM kernels, installed as `qmeter_native.kernels`."""
