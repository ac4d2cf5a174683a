"""Methods that quantize weights only. Data: one row a method.

Whose kernels vLLM 0.26 takes: the order of candidates in ``vllm/model_executor/kernels/linear/__init__.py`` and what
each of them takes (``mixed_precision/``, ``nvfp4/``, ``mxfp4/`` beside it), with the packages that vLLM itself brings.
"""

from __future__ import annotations

from typing import Final

from qmeter_native.quantization import method_configs as configs
from qmeter_native.quantization.method import ARCHITECTURES, Method, VllmServing

__all__ = ["WEIGHT_ONLY"]

# mixed_precision/machete.py: compute capability 9.0 only; it permutes inputs for act-order.
_MACHETE: Final = {"sm_80": ("Marlin",), "sm_89": ("Marlin",), "sm_90": ("Machete",), "sm_100": ("Marlin",)}
# layers/quantization/utils/allspark_utils.py: 8 bits, one group, 8.0 to 8.9.
_ALLSPARK: Final = {"sm_80": ("AllSpark",), "sm_89": ("AllSpark",), "sm_90": ("Machete",), "sm_100": ("Marlin",)}
_MARLIN: Final = dict.fromkeys(ARCHITECTURES, ("Marlin",))
# mxfp4/flashinfer.py: from 10.0 on inputs are rounded to MXFP4 as well.
_MXFP4: Final = {**_MARLIN, "sm_100": ("FlashInfer GEMM",)}
# layers/quantization/bitsandbytes.py: matmul_4bit unpacks for cuBLAS but for a few tokens.
_BITSANDBYTES: Final = VllmServing(dict.fromkeys(ARCHITECTURES, ("bitsandbytes",)), needs="bitsandbytes>=0.46.1")

_OLDER: Final = "vLLM's Marlin runs from 7.5 on; the embedded engine's kernels need 8.0."

WEIGHT_ONLY: Final = (
    Method(
        "rtn-w8a16",
        "W8A16-INT",
        configs.INT8_WEIGHT_ONLY,
        vllm=VllmServing(_ALLSPARK),
        elsewhere=_OLDER,
        summary="8-bit integers, a scale an output channel, rounded to nearest.",
    ),
    Method(
        "gptq-w8a16",
        "W8A16-INT g128",
        configs.gptq(8),
        "gptq",
        vllm=VllmServing(_MACHETE),
        elsewhere=_OLDER,
        summary="8-bit integers in groups of 128, chosen by GPTQ.",
    ),
    Method(
        "rtn-w4a16",
        "W4A16-INT g128",
        configs.INT4_WEIGHT_ONLY,
        vllm=VllmServing(_MACHETE),
        elsewhere=_OLDER,
        summary="4-bit integers in groups of 128 rounded to nearest: what calibrated 4-bit methods are compared with.",
    ),
    Method(
        "gptq",
        "W4A16-INT g128",
        configs.gptq(4),
        "gptq",
        vllm=VllmServing(_MACHETE),
        elsewhere=_OLDER,
        summary="4-bit integers in groups of 128; each column's rounding error is made good in the columns after it.",
    ),
    Method(
        "gptq-act-order",
        "W4A16-INT g128 act-order",
        configs.gptq(4, desc_act=True),
        "gptq",
        vllm=VllmServing(_MACHETE),
        elsewhere=_OLDER,
        summary="GPTQ that rounds the columns with the largest inputs first; kernels must permute their inputs.",
    ),
    Method(
        "awq",
        "W4A16-INT g128 zp",
        configs.AWQ,
        "awq",
        vllm=VllmServing(_MACHETE),
        elsewhere=_OLDER,
        summary="4-bit integers with zero points; channels with large inputs are scaled up before rounding.",
    ),
    Method(
        "hqq",
        "W4A16-INT g64 HQQ",
        configs.HQQ,
        "hqq",
        # No such name among QuantizationMethods of vllm/model_executor/layers/quantization/__init__.py.
        why_not_vllm="vLLM 0.26 has no HQQ.",
        elsewhere="The embedded engine's kernels need 8.0.",
        summary="4-bit integers in groups of 64 with fractional zero points, fitted to the weights alone.",
    ),
    Method(
        "nf4",
        "W4A16-NF4 g64",
        configs.bitsandbytes("nf4", True),
        "bitsandbytes",
        vllm=_BITSANDBYTES,
        elsewhere="bitsandbytes runs from 7.0 on; the embedded engine's kernels need 8.0.",
        summary="16 values at quantiles of a normal distribution, blocks of 64, scales quantized again.",
    ),
    Method(
        "fp4",
        "W4A16-FP4 g64",
        configs.bitsandbytes("fp4", False),
        "bitsandbytes",
        vllm=_BITSANDBYTES,
        elsewhere="bitsandbytes runs from 7.0 on; the embedded engine's kernels need 8.0.",
        summary="bitsandbytes' own 4-bit floating point, blocks of 64.",
    ),
    Method(
        "mxfp4",
        "W4A16-MXFP4 g32",
        configs.MXFP4,
        vllm=VllmServing(_MXFP4),
        elsewhere=_OLDER,
        summary="OCP's 4-bit floating point, power-of-two scales for 32 weights; weight-only before Blackwell, where "
        "vLLM rounds activations to it too.",
    ),
    Method(
        "nvfp4",
        "W4A16-NVFP4 g16",
        configs.NVFP4,
        # init_nvfp4_linear_kernel(use_a16=True) takes Marlin whatever the GPU.
        vllm=VllmServing(_MARLIN),
        elsewhere=_OLDER,
        summary="NVIDIA's 4-bit floating point, FP8 scales for 16 weights; activations stay in 16 bits, on Blackwell "
        "too.",
    ),
)
"""In the order of the table."""
