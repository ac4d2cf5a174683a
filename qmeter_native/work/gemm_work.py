"""What one call of a matrix product has to do, from its sizes and formats: operations, and bytes that must move.

M rows of activations, N outputs, K inputs; a `WeightLayout` says what the weights cost with their scales:

=======================  =======================================================  =====  ===========================
format                   weights                                                  input  further bytes of the input
=======================  =======================================================  =====  ===========================
fp16, bf16               ``WeightLayout(16)``                                     16     none
W4A16-INT g128           ``WeightLayout(4, 16, block=(1, 128))``                  16     none
… with zero points       ``WeightLayout(4, 16, 4, (1, 128))``; HQQ's are 16 bits  16     none
… in act-order           ``… row_bits=32``                                        16     none
NF4, FP4                 ``WeightLayout(4, 32, block=(1, 64))``                   16     none
… quantized twice        ``WeightLayout(4, 8 + 32 / 256, block=(1, 64))``         16     none
MXFP4                    ``WeightLayout(4, 8, block=(1, 32))``                    16     none
NVFP4                    ``WeightLayout(4, 8, block=(1, 16), tensor_bits=32)``    16     none
W8A8, a scale a channel  ``WeightLayout(8, 32, block=(1, 0))``                    8      an fp32 scale a row
W8A8, a scale a tensor   ``WeightLayout(8, 32)``                                  8      none, or a scale a row
W8A8-FP in blocks        ``WeightLayout(8, 32, block=(128, 128))``                8      a scale for 128 inputs
W4A8, a scale a channel  ``WeightLayout(4, 16, 4, (1, 0))``                       8      an fp32 scale a row
W4A8-INT, QoQ g128       ``WeightLayout(4, 8, 4, (1, 128), channel_bits=16)``     8      an fp32 scale a row
W4A8-FP g128             ``WeightLayout(4, 16, block=(1, 128))``                  8      an fp32 scale a row
=======================  =======================================================  =====  ===========================

A product costs ``2 M N K`` operations, whatever the format: decoding, scales, zero points and bias are left out (they
are not what tensor pipes do). Every byte counts once, as if caches were perfect and nothing were read twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from qmeter_native.work.scheme import WeightLayout

__all__ = ["InputScales", "Work", "dequantize_work", "product_work", "quantize_work"]


@dataclass(frozen=True, slots=True)
class Work:
    """What one call must do at least.

    Attributes:
        flops: Operations on the operands' type, a multiply-add counted as two; 0 where tensor pipes have no part.
        read_bytes: Bytes from DRAM.
        write_bytes: Bytes to DRAM.
    """

    flops: int
    read_bytes: int
    write_bytes: int

    @property
    def bytes(self) -> int:
        """Read and written."""
        return self.read_bytes + self.write_bytes

    @property
    def intensity(self) -> float:
        """Operational intensity in FLOP per byte (Williams et al. 2009)."""
        return self.flops / self.bytes


@dataclass(frozen=True, slots=True)
class InputScales:
    """Scales (and zero points) beside quantized activations.

    Attributes:
        group: Inputs of a row that share a scale; 0 = the whole row.
        scale_bits: Bits of a scale.
        zero_bits: Bits of a zero point; 0 = symmetric.
    """

    group: int = 0
    scale_bits: int = 32
    zero_bits: int = 0

    def num_bytes(self, m: int, k: int) -> int:
        """Bytes for ``m`` rows of ``k`` inputs."""
        groups = math.ceil(k / self.group) if self.group else 1
        return math.ceil(m * groups * (self.scale_bits + self.zero_bits) / 8)


def product_work(
    layout: WeightLayout,
    m: int,
    n: int,
    k: int,
    input_bits: float = 16,
    output_bits: float = 16,
    input_scales: InputScales | None = None,
    bias_bits: int = 0,
) -> Work:
    """The work of ``[M, K] @ [N, K]^T -> [M, N]`` by one fused kernel.

    Args:
        layout: The weights. Keep a kernel's scales apart from those of its format where they differ in width.
        m: Rows of activations; above 0, as ``n`` and ``k``.
        n: Outputs.
        k: Inputs.
        input_bits: Bits of an activation as the kernel reads it.
        output_bits: Bits of an output.
        input_scales: Scales of the activations that lie in memory; None = none, or one for all.
        bias_bits: Bits of each output's bias; 0 = none.
    """
    scales = input_scales.num_bytes(m, k) if input_scales else 0
    inputs = math.ceil(m * k * input_bits / 8) + scales
    return Work(
        flops=2 * m * n * k,
        read_bytes=layout.num_bytes(n, k) + inputs + math.ceil(n * bias_bits / 8),
        write_bytes=math.ceil(m * n * output_bits / 8),
    )


def dequantize_work(layout: WeightLayout, n: int, k: int, output_bits: float = 16) -> Work:
    """The work of writing a quantized matrix out as plain numbers, as large products may do first."""
    return Work(0, layout.num_bytes(n, k), math.ceil(n * k * output_bits / 8))


def quantize_work(
    m: int,
    k: int,
    input_bits: float = 16,
    output_bits: float = 8,
    scales: InputScales | None = None,
    is_normed: bool = False,
    has_residual: bool = False,
) -> Work:
    """The work of quantizing ``[M, K]`` activations.

    Args:
        m: Rows, one a token.
        k: Columns.
        input_bits: Bits of what is read, of the norm's weight, and of the residual stream.
        output_bits: Bits of a code.
        scales: Scales that are written; None: one a row, fp32, symmetric.
        is_normed: RMSNorm goes first, and its weight is read.
        has_residual: A residual is read, added and written back.
    """
    rows = m * k * (2 if has_residual else 1)
    read_bits = rows * input_bits + (k * input_bits if is_normed else 0)
    write_bits = m * k * output_bits + (m * k * input_bits if has_residual else 0)
    written = math.ceil(write_bits / 8) + (scales or InputScales()).num_bytes(m, k)
    return Work(0, math.ceil(read_bits / 8), written)
