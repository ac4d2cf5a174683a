"""Loads that are no matrix products: attention, norm, activation, copies, and the bare units of the machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from qmeter_native.calibration.load_kernel import Launch, LoadKernel, num_sets, random_half, rotating
from qmeter_native.model.op_family import OpFamily
from qmeter_native.model.power_model import PowerFeature

__all__ = ["attention_loads", "elementwise_loads", "microbenchmark_loads"]

_ROWS: Final = 16384
_COLUMNS: Final = 8192
_BLOCK_BYTES: Final = 4096 * 4
"""Of the Triton kernels that read or copy."""
_NORMAL_HALF: Final = "normal 16-bit numbers"
_NORMAL: Final = "normal 32-bit numbers"
_TURNS: Final = "normal 32-bit numbers, two sources in turn: what is written differs from what was there"


def attention_loads() -> list[LoadKernel]:
    """Prefill by torch's fused kernels, decode by our own."""
    heads, tokens, width = 32, 4096, 128
    prefill = {
        PowerFeature.DRAM_BYTES: 4.0 * heads * tokens * width * 2,
        PowerFeature.L2_BYTES: heads * tokens * width * 2.0 * (2 + tokens / 128),
        PowerFeature.FP16_FLOP: 4.0 * heads * tokens * tokens * width / 2,
    }
    context, groups = 2048, 512
    cache_bytes = 2.0 * groups * context * width * 2
    decode = {
        PowerFeature.DRAM_BYTES: cache_bytes,
        PowerFeature.L2_BYTES: cache_bytes,
        PowerFeature.FP16_FLOP: 4.0 * groups * 16 * context * width,
    }
    shape = f"1 sequence, {heads} heads of {width}, {tokens} tokens, causal"
    return [
        *(
            LoadKernel(
                "attention_prefill",
                OpFamily.ATTENTION,
                f"{shape}, {backend}",
                prefill,
                partial(_prefill, backend),
                _NORMAL_HALF,
            )
            for backend in ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION")
        ),
        LoadKernel(
            "attention_decode",
            OpFamily.ATTENTION,
            "64 sequences, 8 KV heads, 2048 tokens",
            decode,
            _decode,
            _NORMAL_HALF,
        ),
    ]


def elementwise_loads() -> list[LoadKernel]:
    """Kernels that move data and compute little."""
    numbers = float(_ROWS * _COLUMNS)
    shape = f"{_ROWS} x {_COLUMNS}"

    def load(
        name: str, family: OpFamily, bytes_a_number: float, build: Callable[[int], Launch], data: str = _NORMAL_HALF
    ) -> LoadKernel:
        moved = numbers * bytes_a_number
        work = {PowerFeature.DRAM_BYTES: moved, PowerFeature.L2_BYTES: moved}
        return LoadKernel(name, family, shape, work, build, data)

    return [
        load("rms_norm", OpFamily.NORM, 4, _rms_norm),
        load("silu_and_mul", OpFamily.ACTIVATION, 6, _silu_and_mul),
        load("quantize_fp8", OpFamily.QUANTIZE, 3, _quantize_fp8),
        load("copy", OpFamily.MEMORY, 8, _copy, _TURNS),
        load("memcpy", OpFamily.MEMORY, 8, _memcpy, _TURNS),
        load("add", OpFamily.OTHER, 6, _add),
    ]


def microbenchmark_loads() -> list[LoadKernel]:
    """One unit of the machine each: DRAM, L2, the fp32 pipes."""
    read_bytes = 4.0 * _ROWS * _COLUMNS
    num_programs, num_blocks, num_steps = 1056, 64, 4096
    l2_bytes = float(num_programs * num_blocks * _BLOCK_BYTES)
    return [
        LoadKernel(
            "dram_read",
            OpFamily.MEMORY,
            f"{read_bytes / 1e6:.0f} MB",
            {PowerFeature.DRAM_BYTES: read_bytes, PowerFeature.L2_BYTES: read_bytes},
            _dram_read,
            _NORMAL,
        ),
        LoadKernel(
            "l2_read",
            OpFamily.MEMORY,
            "16 MiB again and again",
            {PowerFeature.L2_BYTES: l2_bytes},
            partial(_l2_read, num_programs=num_programs, num_blocks=num_blocks),
            _NORMAL,
        ),
        LoadKernel(
            "fp32_fma",
            OpFamily.OTHER,
            f"{num_steps} steps",
            {PowerFeature.INSTRUCTIONS: num_programs * 2048 * num_steps / 32},
            partial(_fp32_fma, num_programs=num_programs, num_steps=num_steps),
            "32-bit numbers of a chaotic map, each launch from where the last one ended",
        ),
    ]


def _prefill(backend: str, device: int) -> Launch:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    shape = (1, 32, 4096, 128)

    def one() -> Launch:
        query, key, value = (random_half(device, *shape, dtype="bfloat16") for _ in range(3))

        def launch() -> None:
            with torch.no_grad(), sdpa_kernel(getattr(SDPBackend, backend)):
                torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)

        return launch

    return rotating([one() for _ in range(num_sets(device, 3 * 2 * 32 * 4096 * 128))])


def _decode(device: int) -> Launch:
    from qmeter_native.calibration.triton_kernels import attention_decode

    query = random_half(device, 512, 16, 128)
    out = random_half(device, 512, 16, 128)

    def one() -> Launch:
        key, value = random_half(device, 512, 2048, 128), random_half(device, 512, 2048, 128)
        return lambda: attention_decode(query, key, value, out)

    return rotating([one(), one()])


def _rms_norm(device: int) -> Launch:
    from qmeter_native.calibration.triton_kernels import rms_norm

    weight = random_half(device, _COLUMNS)
    x, out = random_half(device, _ROWS, _COLUMNS), random_half(device, _ROWS, _COLUMNS)
    return lambda: rms_norm(x, weight, out)


def _silu_and_mul(device: int) -> Launch:
    from qmeter_native.calibration.triton_kernels import silu_and_mul

    x, out = random_half(device, _ROWS, 2 * _COLUMNS), random_half(device, _ROWS, _COLUMNS)
    return lambda: silu_and_mul(x, out)


def _quantize_fp8(device: int) -> Launch:
    import torch

    from qmeter_native.calibration.triton_kernels import quantize_fp8

    x = random_half(device, _ROWS, _COLUMNS)
    out = x.to(torch.float8_e4m3fn)
    scales = torch.empty(_ROWS, dtype=torch.float32, device=f"cuda:{device}")
    return lambda: quantize_fp8(x, out, scales)


def _copy(device: int) -> Launch:
    from qmeter_native.calibration.triton_kernels import copy

    a, b = _two_of_fp32(device)
    target = a + b
    return rotating([lambda: copy(a, target), lambda: copy(b, target)])


def _memcpy(device: int) -> Launch:
    a, b = _two_of_fp32(device)
    target = a + b
    return rotating([lambda: target.copy_(a), lambda: target.copy_(b)])


def _add(device: int) -> Launch:
    import torch

    a, b, out = (random_half(device, _ROWS, _COLUMNS) for _ in range(3))
    return lambda: torch.add(a, b, out=out)


def _dram_read(device: int) -> Launch:
    import torch

    from qmeter_native.calibration.triton_kernels import dram_read

    num_programs = 1024
    out = torch.empty(num_programs, dtype=torch.float32, device=f"cuda:{device}")
    a, b = _two_of_fp32(device)
    return rotating([lambda: dram_read(a, out, num_programs), lambda: dram_read(b, out, num_programs)])


def _l2_read(device: int, num_programs: int, num_blocks: int) -> Launch:
    import torch

    from qmeter_native.calibration.triton_kernels import l2_read

    source = random_half(device, 16 << 18, dtype="float32")
    out = torch.empty(num_programs, dtype=torch.float32, device=f"cuda:{device}")
    return lambda: l2_read(source, out, num_programs, num_blocks)


def _fp32_fma(device: int, num_programs: int, num_steps: int) -> Launch:
    import torch

    from qmeter_native.calibration.triton_kernels import fp32_fma

    values = torch.rand(num_programs * 2048, dtype=torch.float32, device=f"cuda:{device}")
    return lambda: fp32_fma(values, num_programs, num_steps)


def _two_of_fp32(device: int) -> tuple[Any, Any]:
    """512 MiB each."""
    return (
        random_half(device, _ROWS * _COLUMNS, dtype="float32"),
        random_half(device, _ROWS * _COLUMNS, dtype="float32"),
    )
