"""Quantized caches of keys and values: what is stored for a token and head, and KIVI's layout.

Formats of paged caches (names as vLLM's ``kv_cache_dtype`` where it has them), by what is stored of one head's vector
of D elements:

=========================  ===========  =============================================================
name                       codes        scales, and what they stand for
=========================  ===========  =============================================================
``float16``, ``bfloat16``  2 D bytes    none
``fp8``                    D bytes      float32, one a head for all tokens, given: ``x = code * scale``
``fp8_per_token_head``     D bytes      float32: ``x = code * scale``
``int8_per_token_head``    D bytes      float32: ``x = code * scale``
``int4_per_token_head``    D / 2 bytes  float16 scale, float16 minimum: ``x = code * scale + minimum``
=========================  ===========  =============================================================

Byte j of four-bit codes holds element 2 j in its low half and 2 j + 1 in its high half, as QServe's and vLLM's do;
vLLM 0.26 hides a zero point in its float32 scale instead of storing a minimum, which takes the same four bytes.

KIVI (Liu et al. 2024, arXiv 2402.02750) stores keys by channel: elements of one channel at ``group`` successive tokens
share scale and minimum, so that a group can be written only when it is full, and the newest tokens wait in 16 bits.
A paged cache that takes one token at a time does not fit it; its layout is here to be read and written as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import torch

from qmeter_native.errors import UsageError
from qmeter_native.kernels.packing.bits import pack_bits, unpack_bits

__all__ = [
    "FORMATS",
    "KiviTensor",
    "KvCacheFormat",
    "dequantize_kivi_keys",
    "dequantize_kivi_values",
    "dequantize_kv",
    "format_named",
    "pack_int4",
    "quantize_kivi_keys",
    "quantize_kivi_values",
    "quantize_kv",
    "unpack_int4",
]

SMALLEST_STEP: Final = 2.0**-14
"""Of four-bit codes: the smallest normal number of float16; narrower ranges are stored in such steps."""

FLOOR: Final = 2.0**-64
"""Largest magnitudes below count as this much, so that no scale is 0."""


@dataclass(frozen=True, slots=True)
class KvCacheFormat:
    """How one head's key or value of one token is stored.

    Attributes:
        name: As in the table above.
        dtype: Of the stored elements.
        bits: Of a code.
        scaling: Who shares a scale: nobody has one, all tokens of a head, or the elements of one token and head.
    """

    name: str
    dtype: Any
    bits: int
    scaling: Literal["none", "head", "token_head"]

    @property
    def scale_dtype(self) -> Any:
        """Of what `scaling` shares: float32 scales, or float16 pairs of scale and minimum."""
        return torch.float16 if self.bits == 4 else torch.float32

    def stored_size(self, head_size: int) -> int:
        """Stored elements of a head's vector."""
        return head_size // 2 if self.bits == 4 else head_size

    def bytes_per_token_head(self, head_size: int) -> int:
        """Of a key, or of a value, with its scales; what all tokens share is not counted."""
        return head_size * self.bits // 8 + (4 if self.scaling == "token_head" else 0)


FORMATS: Final = (
    KvCacheFormat("float16", torch.float16, 16, "none"),
    KvCacheFormat("bfloat16", torch.bfloat16, 16, "none"),
    KvCacheFormat("fp8", torch.float8_e4m3fn, 8, "head"),
    KvCacheFormat("fp8_per_token_head", torch.float8_e4m3fn, 8, "token_head"),
    KvCacheFormat("int8_per_token_head", torch.int8, 8, "token_head"),
    KvCacheFormat("int4_per_token_head", torch.uint8, 4, "token_head"),
)


def format_named(name: str) -> KvCacheFormat:
    """The format of a name.

    Raises:
        UsageError: There is none; the message lists them.
    """
    for candidate in FORMATS:
        if candidate.name == name:
            return candidate
    raise UsageError(f"There is no cache format {name!r}", f"Choose of: {', '.join(form.name for form in FORMATS)}.")


def quantize_kv(x: Any, form: KvCacheFormat, scales: Any | None = None) -> tuple[Any, Any | None]:
    """What is stored of keys or values, and their scales; rounded to nearest even, saturating.

    A token's head that holds an infinity or NaN gets that as its scale, and dequantizes to NaN.

    Args:
        x: Floating point ``[..., G, D]``: heads of keys or values.
        form: Of the cache.
        scales: float32 ``[G]`` or ``[1]``, for a format whose heads have a scale each; else None.

    Returns:
        Stored ``[..., G, D]`` (four bits: ``[..., G, D / 2]``) and scales: None, those given, float32 ``[..., G]``,
        or float16 ``[..., G, 2]`` of scale and minimum.

    Raises:
        UsageError: Scales are missing or not wanted, or D is odd for four bits.
    """
    _check_scales(form, scales)
    if form.scaling == "none":
        return x.to(form.dtype), None
    if scales is not None:
        return _round(x.float() * (1.0 / scales.float())[:, None], form), scales
    if form.bits == 4:
        return _quantize_int4(x.float())
    limit = torch.tensor(127.0 if form.dtype == torch.int8 else 448.0, device=x.device)
    peak = x.float().abs().amax(dim=-1).clamp(min=FLOOR)
    return _round(x.float() * (limit / peak)[..., None], form), peak / limit


def dequantize_kv(stored: Any, scales: Any | None, form: KvCacheFormat, dtype: Any = torch.float32) -> Any:
    """Keys or values ``[..., G, D]``, computed in ``dtype``; exact in float64.

    Raises:
        UsageError: Scales are missing or not wanted.
    """
    if (scales is None) != (form.scaling == "none"):
        raise UsageError(f"{form.name} {'has no' if scales is not None else 'needs its'} scales")
    if scales is None:
        return stored.to(dtype)
    if form.bits == 4:
        scale, minimum = scales.to(dtype).unbind(dim=-1)
        return unpack_int4(stored).to(dtype) * scale[..., None] + minimum[..., None]
    return stored.to(dtype) * scales.to(dtype)[..., None]


def pack_int4(codes: Any) -> Any:
    """Codes uint8 ``[..., D]`` below 16 to bytes ``[..., D / 2]``, the even element in the low half."""
    return pack_bits(codes, 4, word=torch.uint8, dim=-1)


def unpack_int4(stored: Any) -> Any:
    """Bytes ``[..., D / 2]`` to codes uint8 ``[..., D]``."""
    return unpack_bits(stored, 4, 2 * stored.shape[-1], dim=-1)


def _check_scales(form: KvCacheFormat, scales: Any | None) -> None:
    if (scales is None) == (form.scaling == "head"):
        raise UsageError(
            f"{form.name} {'needs' if scales is None else 'finds its own'} scales",
            "Give float32 scales by head to the format fp8, and to no other.",
        )


def _round(x: Any, form: KvCacheFormat) -> Any:
    if form.dtype == torch.int8:
        return x.round().nan_to_num(0).clamp(-128, 127).to(torch.int8)
    return x.clamp(-448.0, 448.0).to(form.dtype)


def _quantize_int4(x: Any) -> tuple[Any, Any]:
    """Codes by scale and minimum as float16 rounds them, so that both sides of the cache see the same numbers."""
    if x.shape[-1] % 2:
        raise UsageError(f"Heads have {x.shape[-1]} elements", "Two four-bit codes share a byte: give an even number.")
    low, high, peak = x.amin(dim=-1), x.amax(dim=-1), x.abs().amax(dim=-1)
    span = torch.where(peak.isfinite(), high - low, peak)
    scale = (span / torch.tensor(15.0, device=x.device)).clamp(min=SMALLEST_STEP).half()
    minimum = low.half()
    codes = ((x - minimum.float()[..., None]) * (1.0 / scale.float())[..., None]).round().nan_to_num(0).clamp(0, 15)
    return pack_int4(codes.to(torch.uint8)), torch.stack((scale, minimum), dim=-1)


@dataclass(frozen=True, slots=True)
class KiviTensor:
    """Codes along the last dimension, of which each ``group`` shares scale and minimum: ``x = code * scale + minimum``.

    Attributes:
        words: int32 ``[..., L * bits / 32]``, codes from the least significant bit on.
        scales, minima: ``[..., L / group]``, in the type of what was quantized.
        bits: 2, 4 or 8.
        group: Elements that share a scale.
    """

    words: Any
    scales: Any
    minima: Any
    bits: int
    group: int

    def dequantize(self, dtype: Any = torch.float32) -> Any:
        """``[..., L]``, computed in ``dtype``."""
        length = self.scales.shape[-1] * self.group
        codes = unpack_bits(self.words, self.bits, length, dim=-1).to(dtype).unflatten(-1, (-1, self.group))
        return (codes * self.scales.to(dtype)[..., None] + self.minima.to(dtype)[..., None]).flatten(-2)


def quantize_kivi_keys(keys: Any, bits: int = 2, group: int = 32) -> KiviTensor:
    """Keys ``[..., T, D]`` by channel, packed along T: words ``[..., D, T * bits / 32]``.

    Raises:
        UsageError: T is no multiple of ``group``, groups fill no whole words, or bits are not 2, 4 or 8.
    """
    return _quantize_kivi(keys.transpose(-1, -2), bits, group)


def quantize_kivi_values(values: Any, bits: int = 2, group: int = 32) -> KiviTensor:
    """Values ``[..., T, D]`` by token, packed along D: words ``[..., T, D * bits / 32]``.

    Raises:
        UsageError: D is no multiple of ``group``, groups fill no whole words, or bits are not 2, 4 or 8.
    """
    return _quantize_kivi(values, bits, group)


def dequantize_kivi_keys(keys: KiviTensor, dtype: Any = torch.float32) -> Any:
    """Keys ``[..., T, D]``."""
    return keys.dequantize(dtype).transpose(-1, -2)


def dequantize_kivi_values(values: KiviTensor, dtype: Any = torch.float32) -> Any:
    """Values ``[..., T, D]``."""
    return values.dequantize(dtype)


def _quantize_kivi(x: Any, bits: int, group: int) -> KiviTensor:
    if bits not in (2, 4, 8):
        raise UsageError(f"KIVI's bits are {bits}", "They must be 2, 4 or 8.")
    if group * bits % 32:
        raise UsageError(f"A group of {group} codes of {bits} bits fills no whole words", "Give a multiple of 32 bits.")
    if x.shape[-1] % group:
        raise UsageError(f"{x.shape[-1]} elements are no whole groups of {group}", "Keep what is left in 16 bits.")
    groups = x.unflatten(-1, (-1, group)).float()
    minima = groups.amin(dim=-1).to(x.dtype)
    smallest = torch.finfo(x.dtype).smallest_normal
    scales = ((groups.amax(dim=-1) - minima.float()) / (2**bits - 1)).clamp(min=smallest).to(x.dtype)
    codes = ((groups - minima.float()[..., None]) / scales.float()[..., None]).round().clamp(0, 2**bits - 1)
    return KiviTensor(pack_bits(codes.flatten(-2).to(torch.uint8), bits, dim=-1), scales, minima, bits, group)
