"""What the vendor's datasheets say about GPUs; ``gpus.json`` beside this module holds the figures and their sources."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from qmeter_native.errors import UsageError

__all__ = ["TENSOR_TYPES", "ChipInfo", "chip_info", "find_chip", "known_chips"]

TENSOR_TYPES: Final = ("fp32", "tf32", "bf16", "fp16", "fp8", "int8", "fp4")
"""Types of operands that rates are given for. ``fp32`` runs on the SMs' own lanes, the others on tensor pipes."""

_MIB: Final = 1 << 20
_VENDOR: Final = frozenset({"nvidia", "geforce", "tesla", "gpu"})
"""Words that tell no product from another."""


@dataclass(frozen=True, slots=True)
class ChipInfo:
    """One product by its datasheet.

    Attributes:
        product: What people call it, such as ``H100 SXM``.
        names: Regular expression that NVML's whole name of it matches.
        chip: The vendor's name of the chip, by which CUPTI knows it, such as ``GH100``.
        compute_capability: Such as ``9.0``.
        num_sms: Streaming multiprocessors.
        boost_mhz: Highest SM clock that the vendor promises.
        tdp_w: Board's power limit as it is sold.
        memory: Kind of DRAM, such as ``HBM3e``.
        dram_bytes_s: DRAM bandwidth, reading and writing together.
        l2_bytes: L2 cache.
        peak_flop_s: By `TENSOR_TYPES`, dense rate, a multiply-add counted as two; types that the part lacks are absent.
        flop_per_sm_cycle: By `TENSOR_TYPES`, what one SM does in a cycle in which it does nothing else.
        sources: Addresses of the vendor's documents.
        verified: When its figures were last compared with a document of the vendor's, and with which; None: they were
            entered by hand from the sources and not compared again.
    """

    product: str
    names: str
    chip: str
    compute_capability: str
    num_sms: int
    boost_mhz: float
    tdp_w: float
    memory: str
    dram_bytes_s: float
    l2_bytes: int
    peak_flop_s: Mapping[str, float]
    flop_per_sm_cycle: Mapping[str, float]
    sources: tuple[str, ...]
    verified: str | None = None


def chip_info(name: str, compute_capability: str | None = None) -> ChipInfo | None:
    """The datasheet of the GPU that NVML calls ``name``; None if it is not known.

    Args:
        name: NVML's name, such as ``NVIDIA H200``.
        compute_capability: Such as ``9.0``; a product of that name with another one is not taken. None: any.
    """
    for chip in known_chips():
        if re.fullmatch(chip.names, name) and compute_capability in (None, chip.compute_capability):
            return chip
    return None


def find_chip(name: str) -> ChipInfo:
    """The datasheet that a person means: NVML's name, or enough words of the product's to tell it from others.

    Args:
        name: Such as ``NVIDIA H200``, ``H100 SXM``, ``a100 80gb pcie``; capitals, hyphens and the vendor do not count.

    Raises:
        UsageError: No product goes by it, or several do.
    """
    if exact := chip_info(name) or chip_info(f"NVIDIA {name}"):
        return exact
    wanted = _words(name)
    same = [chip for chip in known_chips() if _words(chip.product) == wanted]
    found = same or [chip for chip in known_chips() if wanted and wanted <= _words(chip.product)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{name!r} may be any of: {', '.join(chip.product for chip in found)}", "Name one of them.")
    known = ", ".join(chip.product for chip in known_chips())
    raise UsageError(f"the GPU database has no {name!r}", f"It has: {known}.")


def _words(name: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z0-9]+", name.lower())) - _VENDOR


@cache
def known_chips() -> tuple[ChipInfo, ...]:
    """All datasheets."""
    document = json.loads(files("qmeter_native.devices").joinpath("gpus.json").read_text(encoding="utf-8"))
    return tuple(_chip_info(entry) for entry in document["gpus"])


def _chip_info(entry: dict[str, Any]) -> ChipInfo:
    peaks = {kind: rate * 1e12 for kind, rate in entry["dense_tflops"].items() if rate is not None}
    cycles_s = entry["num_sms"] * entry["boost_mhz"] * 1e6
    derived = {kind: _power_of_two(rate / cycles_s) for kind, rate in peaks.items()}
    return ChipInfo(
        product=entry["product"],
        names=entry["names"],
        chip=entry["chip"],
        compute_capability=entry["compute_capability"],
        num_sms=entry["num_sms"],
        boost_mhz=float(entry["boost_mhz"]),
        tdp_w=float(entry["tdp_w"]),
        memory=entry["memory"],
        dram_bytes_s=entry["dram_gb_s"] * 1e9,
        l2_bytes=entry["l2_mib"] * _MIB,
        peak_flop_s=peaks,
        flop_per_sm_cycle={**derived, **entry.get("flop_per_sm_cycle", {})},
        sources=tuple(entry["sources"]),
        verified=entry.get("verified"),
    )


def _power_of_two(rate: float) -> float:
    """The nearest in ratio: hardware does a power of two a cycle, but the vendor quotes some rates at lower clocks.

    An H100 SXM does 4096 16-bit FLOP a cycle and SM; 989.4 TFLOP/s hold at 1830 MHz, its boost clock is 1980 MHz.
    """
    return float(2 ** round(math.log2(rate)))
