"""Quantizers of activations: what serving runs before each product whose inputs are int8 or fp8.

- `quantize`: by token, by group, by a given scale, each also behind SiLU-and-multiply.
- `rms_norm`: RMS norm with its residual sum, quantized by token.
- `rounding`: the arithmetic that the kernels share.
- `reference`: the same in plain torch, for machines without a GPU and for tests.

A row that holds an infinity or a NaN gets that as its scale, so that it dequantizes to NaN and is seen.
"""
