"""Matrix products as loads: 16-bit and quantized, by cuBLAS, by torch's own kernels and by Triton."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from qmeter_native.calibration.load_kernel import Launch, LoadKernel, num_sets, random_half, rotating
from qmeter_native.model.op_family import OpFamily
from qmeter_native.model.power_model import PowerFeature

__all__ = ["gemm_loads"]

_TILE: Final = 128
"""Rows and columns of an output tile that the bytes asked of L2 are reckoned with."""
_GROUP: Final = 128
"""Weights of one scale in 4-bit formats."""
_SQUARE: Final = (4096, 4096, 4096)
_LARGE: Final = (_SQUARE, (2816, 6144, 8192), (3072, 5632, 8192), (4224, 8192, 4096), (1536, 2816, 16384))
"""Rows, columns and inner size. All but the first are whole waves of tiles on 132 SMs, where cuBLAS need not split a
tile among SMs, for which it clears memory first."""
_NORMAL_HALF: Final = "normal 16-bit numbers"
_NORMAL_FP8: Final = "normal numbers in e4m3"
_UNIFORM_INT8: Final = "uniform 8-bit integers"


def gemm_loads() -> list[LoadKernel]:
    """Every matrix product; of those with one name, later ones replace one that a GPU does not run as one kernel."""
    return [
        *(_load("fp16_gemm_large", m, n, k, build=_half) for m, n, k in _LARGE),
        _load("fp16_gemm_large", *_SQUARE, build=_half_triton, made_by="Triton"),
        _load("bf16_gemm_m512", 512, 8192, 8192, build=partial(_half, dtype="bfloat16")),
        *(_load("fp16_gemm_m128", 128, n, k, build=_half) for n, k in ((16384, 8192), (28672, 4096))),
        *(_load("fp16_gemm_m16", 16, n, k, build=_half) for n, k in ((28672, 4096), (57344, 2048), (16384, 8192))),
        *(_load("fp8_gemm_large", m, n, k, 8, build=_fp8, kind="fp8", data=_NORMAL_FP8) for m, n, k in _LARGE),
        _load("fp8_gemm_large", *_SQUARE, 8, build=_fp8_triton, kind="fp8", data=_NORMAL_FP8, made_by="Triton"),
        *(
            _load("fp8_gemm_m16", 16, n, k, 8, build=_fp8, kind="fp8", data=_NORMAL_FP8)
            for n, k in ((28672, 4096), (57344, 4096), (16384, 8192))
        ),
        *(
            _load("int8_gemm_large", size, size, size, 8, build=_int8, kind="int8", data=_UNIFORM_INT8)
            for size in (4096, 8192)
        ),
        *(
            _load("int8_gemm_m32", 32, n, k, 8, build=_int8, kind="int8", data=_UNIFORM_INT8)
            for n, k in ((28672, 4096), (57344, 4096), (16384, 8192))
        ),
        *(
            _load("int4_gemm_m16", 16, n, k, 4, build=_int4, data=f"{_NORMAL_HALF}; uniform 4-bit codes, normal scales")
            for n, k in ((28672, 4096), (14336, 4096))
        ),
        _load(
            "w4a16_gemm_m16",
            *(16, 28672, 4096, 4),
            build=_w4a16,
            data=f"{_NORMAL_HALF}; uniform 4-bit codes and zero points, normal scales",
        ),
        _load(
            "w8a16_gemm_m16",
            *(16, 28672, 4096, 8),
            build=_w8a16,
            data=f"{_NORMAL_HALF}; {_UNIFORM_INT8}, normal scales",
        ),
    ]


def _load(
    name: str,
    m: int,
    n: int,
    k: int,
    weight_bits: int = 16,
    *,
    build: Any,
    kind: str = "fp16",
    data: str = _NORMAL_HALF,
    made_by: str = "",
) -> LoadKernel:
    """``kind``: the type that tensor pipes multiply in, which also is the activations'."""
    flop = {"fp16": PowerFeature.FP16_FLOP, "fp8": PowerFeature.FP8_FLOP, "int8": PowerFeature.INT8_OP}[kind]
    input_bytes = m * k * (2 if kind == "fp16" else 1)
    weight_bytes = n * k * weight_bits / 8 * (1 + 16 / weight_bits / _GROUP if weight_bits == 4 else 1)
    output_bytes = m * n * (4 if kind == "int8" else 2)
    work = {
        PowerFeature.DRAM_BYTES: input_bytes + weight_bytes + output_bytes,
        PowerFeature.L2_BYTES: input_bytes * -(-n // _TILE) + weight_bytes * -(-m // _TILE) + output_bytes,
        flop: 2.0 * m * n * k,
    }
    shape = f"M={m} N={n} K={k}" + (f", {made_by}" if made_by else "")
    return LoadKernel(name, OpFamily.GEMM, shape, work, lambda device: build(device, m, n, k), data, weight_bits < 16)


def _halves(device: int, m: int, n: int, k: int, dtype: str = "float16") -> tuple[Any, Any]:
    """Inputs (M, K) and weights (N, K), scaled so that outputs are normal too."""
    return random_half(device, m, k, dtype=dtype), random_half(device, n, k, dtype=dtype, scale=k**-0.5)


def _eights(device: int, m: int, n: int, k: int) -> tuple[Any, Any]:
    """Likewise in e4m3, unscaled."""
    import torch

    return random_half(device, m, k).to(torch.float8_e4m3fn), random_half(device, n, k).to(torch.float8_e4m3fn)


def _half(device: int, m: int, n: int, k: int, dtype: str = "float16") -> Launch:
    import torch

    out = torch.empty(m, n, dtype=getattr(torch, dtype), device=f"cuda:{device}")

    def one() -> Launch:
        x, weight = _halves(device, m, n, k, dtype)
        return lambda: torch.mm(x, weight.t(), out=out)

    return rotating([one() for _ in range(num_sets(device, 2 * k * (n + m)))])


def _fp8(device: int, m: int, n: int, k: int) -> Launch:
    import torch

    scale = torch.ones((), dtype=torch.float32, device=f"cuda:{device}")

    def one() -> Launch:
        x, weight = _eights(device, m, n, k)
        return lambda: torch._scaled_mm(x, weight.t(), scale, scale, out_dtype=torch.bfloat16)

    return rotating([one() for _ in range(num_sets(device, k * (n + m)))])


def _half_triton(device: int, m: int, n: int, k: int) -> Launch:
    return _triton(random_half(device, m, n), [_halves(device, m, n, k) for _ in range(2)])


def _fp8_triton(device: int, m: int, n: int, k: int) -> Launch:
    return _triton(random_half(device, m, n, dtype="bfloat16"), [_eights(device, m, n, k) for _ in range(2)])


def _triton(out: Any, inputs: list[tuple[Any, Any]]) -> Launch:
    from qmeter_native.calibration.triton_kernels import gemm

    return rotating([partial(gemm, x, weight, out) for x, weight in inputs])


def _int8(device: int, m: int, n: int, k: int) -> Launch:
    import torch

    def codes(*shape: int) -> Any:
        return torch.randint(-127, 128, shape, dtype=torch.int8, device=f"cuda:{device}")

    out = torch.empty(m, n, dtype=torch.int32, device=f"cuda:{device}")

    def one() -> Launch:
        x, weight = codes(m, k), codes(n, k)
        return lambda: torch._int_mm(x, weight.t(), out=out)  # weights column-major: row-major ones take a slow kernel

    return rotating([one() for _ in range(num_sets(device, k * (n + m)))])


def _int4(device: int, m: int, n: int, k: int) -> Launch:
    import torch

    x = random_half(device, m, k, dtype="bfloat16")

    def one() -> Launch:
        codes = torch.randint(0, 256, (n, k // 2), dtype=torch.uint8, device=f"cuda:{device}")
        weight = torch._convert_weight_to_int4pack(codes, 8)
        scales = random_half(device, k // _GROUP, n, 2, dtype="bfloat16", scale=0.01)
        return lambda: torch._weight_int4pack_mm(x, weight, _GROUP, scales)

    return rotating([one() for _ in range(num_sets(device, k * n / 2))])


def _w4a16(device: int, m: int, n: int, k: int) -> Launch:
    import torch

    from qmeter_native.calibration.triton_kernels import w4a16_gemm

    x = random_half(device, m, k)
    out = torch.empty_like(random_half(device, m, n))

    def one() -> Launch:
        words = partial(torch.randint, -(2**31), 2**31, dtype=torch.int32, device=f"cuda:{device}")
        weight, zeros = words((k // 8, n)), words((k // _GROUP, n // 8))
        scales = random_half(device, k // _GROUP, n, scale=0.01)
        return lambda: w4a16_gemm(x, weight, zeros, scales, out)

    return rotating([one() for _ in range(num_sets(device, k * n / 2))])


def _w8a16(device: int, m: int, n: int, k: int) -> Launch:
    import torch

    from qmeter_native.calibration.triton_kernels import w8a16_gemm

    x = random_half(device, m, k)
    out = torch.empty_like(random_half(device, m, n))

    def one() -> Launch:
        weight = torch.randint(-127, 128, (k, n), dtype=torch.int8, device=f"cuda:{device}")
        scales = random_half(device, n, scale=0.01)
        return lambda: w8a16_gemm(x, weight, scales, out)

    return rotating([one() for _ in range(num_sets(device, k * n))])
