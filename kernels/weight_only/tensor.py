"""A weight prepared for the weight-only kernels: words in tensor-core order, scales and zero points beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch.nn.functional import pad

from qmeter_native.errors import UsageError
from qmeter_native.kernels.quantized_weight import CodebookWeight, IntegerWeight, ScaledWeight
from qmeter_native.kernels.weight_only.encoding import ENCODINGS, Encoding, pack_pairs, tile_words
from qmeter_native.kernels.weight_only.layout import Layout

__all__ = ["WeightOnlyTensor"]

_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Of codes 0 to 7; those of 8 to 15 are negative (OCP Microscaling Formats, section 5.3.3)."""


@dataclass(frozen=True, slots=True)
class WeightOnlyTensor:
    """A quantized weight ``[N, K]`` as the kernels read it; made by `prepare`.

    Attributes:
        shape: N, K.
        dtype: float16 or bfloat16, in which it is dequantized; products take both.
        kind: Of the encoding.
        span: Inputs of a part in a tile.
        group_size: Inputs that share a scale; 0: all do.
        words: int16 ``[N' / 64, K' / tile_k, words, 64 * span]``, ``N'`` and ``K'`` padded.
        scales: int32 ``[G, N' / 2]``, pairs of float16; None where one scale covers a row.
        zeros: int32 ``[G, N' / 2]``, pairs of float16, or None.
        row_scales: float32 ``[N']``, multiplies every scale of a row.
        table: float32 ``[16]``, the codes' values where the encoding has a table.
        float_zeros: Zero points are no integers.
        order: int32 ``[K]``, the activation that each prepared input takes (act-order), or None.
        counters: int32, zero between launches: programs that share an output tile count themselves in here.
            Launches of one weight on several streams at once would miscount.
        values: The table's values.
    """

    shape: tuple[int, int]
    dtype: Any
    kind: str
    span: int
    group_size: int
    words: Any
    scales: Any | None
    zeros: Any | None
    row_scales: Any
    table: Any | None
    float_zeros: bool
    order: Any | None
    counters: Any
    values: tuple[float, ...] = ()

    @classmethod
    def prepare(
        cls, weight: IntegerWeight | CodebookWeight | ScaledWeight, dtype: Any | None = None
    ) -> WeightOnlyTensor:
        """Arrange a weight for the kernels.

        Exact, but for scales of groups that have more bits than float16: these are rounded, relative to the largest of
        their row. Products round zero points that are no integers, and tables, to the activations' type.

        Args:
            weight: Of 2, 3, 4 or 8 bits.
            dtype: Its type when dequantized, float16 or bfloat16; None: that of the scales if it is one, else float16.

        Raises:
            UsageError: The weight has a group size, a width or an order of inputs that kernels do not take.
        """
        for kind, prepare in _PREPARE.items():
            if isinstance(weight, kind):
                return prepare(weight, _activation_dtype(dtype, weight.scales.dtype))
        raise UsageError(
            f"weight is a {type(weight).__name__}",
            "Weight-only kernels take an IntegerWeight, a CodebookWeight or a ScaledWeight.",
        )

    @property
    def layout(self) -> Layout:
        """Its shape and format."""
        return Layout(self.shape, self.kind, self.span, self.group_size, self.words.device)

    @property
    def device(self) -> Any:
        """Where it is."""
        return self.words.device

    @property
    def num_bytes(self) -> int:
        """Bytes that one product reads of it."""
        read = (self.words, self.scales, self.zeros, self.row_scales, self.order)
        return sum(int(tensor.nbytes) for tensor in read if tensor is not None)

    def tensors(self) -> dict[str, Any]:
        """Its tensors by name, as a module registers them as buffers."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}

    def with_tensors(self, tensors: dict[str, Any]) -> WeightOnlyTensor:
        """The same weight with other storage, such as buffers that were moved."""
        return replace(self, **tensors)

    def to(self, device: Any) -> WeightOnlyTensor:
        """The same weight on another device."""
        return self.with_tensors({name: tensor.to(device) for name, tensor in self.tensors().items()})


def _activation_dtype(dtype: Any | None, of_scales: Any) -> Any:
    allowed = (torch.float16, torch.bfloat16)
    if dtype is None:
        return of_scales if of_scales in allowed else torch.float16
    if dtype not in allowed:
        raise UsageError(f"dtype is {str(dtype).removeprefix('torch.')}", "It must be float16 or bfloat16.")
    return dtype


def _prepare_integer(weight: IntegerWeight, dtype: Any) -> WeightOnlyTensor:
    if f"uint{weight.bits}" not in ENCODINGS:
        raise UsageError(f"bits is {weight.bits}", "Weight-only kernels take 2, 3, 4 and 8.")
    codes, order = weight.codes, None
    if weight.group_of is not None:
        order = _group_order(weight.group_of, weight.group_size)
        codes = codes[:, order] if order is not None else codes
    return _assemble(
        f"uint{weight.bits}", codes, weight.scales, weight.group_size, dtype, zeros=weight.zeros, order=order
    )


def _group_order(group_of: Any, group_size: int) -> Any | None:
    """Inputs sorted by group, in their order within it; None where they already are."""
    k = group_of.shape[0]
    order = torch.argsort(group_of.long(), stable=True)
    regular = torch.arange(k, device=group_of.device) // group_size
    if not torch.equal(group_of.long()[order], regular):
        raise UsageError(
            f"Groups of inputs do not have {group_size} members each",
            "An act-order weight that was cut along its inputs cannot be prepared: cut it after preparation.",
        )
    return None if torch.equal(group_of.long(), regular) else order.int()


def _prepare_codebook(weight: CodebookWeight, dtype: Any) -> WeightOnlyTensor:
    values = tuple(float(value) for value in weight.table.flatten().tolist())
    if len(values) != 16:
        raise UsageError(f"table has {len(values)} values", "Weight-only kernels take 16.")
    kind = "e2m1" if values == (*_E2M1, *(-value for value in _E2M1)) else "table"
    table = weight.table.flatten().float() if kind == "table" else None
    return _assemble(kind, weight.codes, weight.scales, weight.group_size, dtype, table=table)


def _prepare_scaled(weight: ScaledWeight, dtype: Any) -> WeightOnlyTensor:
    n, k = weight.shape
    rows, columns = weight.block
    scales = weight.scales.float().repeat_interleave(rows, dim=0)[:n]
    group_size = k if columns >= k else columns
    if weight.values.dtype == torch.int8:
        return _assemble("uint8", (weight.values.short() + 128).to(torch.uint8), scales, group_size, dtype)
    if weight.values.dtype == torch.float8_e4m3fn:
        return _assemble("e4m3", weight.values.view(torch.uint8), scales, group_size, dtype)
    raise UsageError(
        f"values is {str(weight.values.dtype).removeprefix('torch.')}", "It must be int8 or float8_e4m3fn."
    )


_PREPARE: dict[type, Callable[[Any, Any], WeightOnlyTensor]] = {
    IntegerWeight: _prepare_integer,
    CodebookWeight: _prepare_codebook,
    ScaledWeight: _prepare_scaled,
}


def _assemble(
    kind: str,
    codes: Any,
    scales: Any,
    group_size: int,
    dtype: Any,
    zeros: Any | None = None,
    table: Any | None = None,
    order: Any | None = None,
) -> WeightOnlyTensor:
    n, k = codes.shape
    group_size = 0 if group_size >= k else group_size
    encoding = ENCODINGS[kind]
    layout = Layout((n, k), kind, _span(encoding, group_size), group_size, codes.device)
    rows, columns = layout.padded_shape
    padded = pad(codes, (0, columns - k, 0, rows - n)).reshape(rows, layout.tiles, encoding.parts, layout.span)
    row_scales, group_scales = _split_scales(scales.float(), encoding.exponent, one_group=group_size == 0)
    return WeightOnlyTensor(
        shape=layout.shape,
        dtype=dtype,
        kind=kind,
        span=layout.span,
        group_size=group_size,
        words=tile_words(encoding.pack(padded)),
        scales=None if group_scales is None else _pairs(group_scales, layout),
        zeros=None if zeros is None else _pairs(zeros, layout),
        row_scales=pad(row_scales, (0, rows - n)),
        table=table,
        float_zeros=zeros is not None and zeros.dtype.is_floating_point,
        order=order,
        counters=torch.zeros(layout.num_counters, dtype=torch.int32, device=codes.device),
        values=() if table is None else tuple(float(value) for value in table.tolist()),
    )


def _span(encoding: Encoding, group_size: int) -> int:
    """Inputs of a part, such that tiles hold whole groups or groups hold whole tiles."""
    for span in encoding.spans:
        tile_k = encoding.parts * span
        if group_size == 0 or group_size % tile_k == 0 or (tile_k % group_size == 0 and group_size >= 16):
            return span
    raise UsageError(
        f"group_size is {group_size}",
        f"For {encoding.kind} it must be all inputs, 16, 32, 64, 128, or a multiple of "
        f"{encoding.parts * encoding.spans[-1]}.",
    )


def _split_scales(scales: Any, exponent: int, one_group: bool) -> tuple[Any, Any | None]:
    """Scales of rows, and what is left for groups.

    A row's largest becomes 1 to 2 times ``2 ** exponent``, so that float16 holds scales of any size; powers of two
    divide exactly.
    """
    if one_group:
        return scales[:, 0] * 2.0**exponent, None
    _, binades = torch.frexp(scales.abs().amax(dim=1))
    one = torch.ones_like(scales[:, 0])
    groups = torch.ldexp(scales, (1 - binades)[:, None]) * 2.0**exponent
    return torch.ldexp(one, binades - 1), groups


def _pairs(values: Any, layout: Layout) -> Any:
    """Of the padded outputs and groups."""
    more_groups, more_rows = layout.groups - values.shape[1], layout.padded_shape[0] - layout.shape[0]
    return pack_pairs(pad(values.to(torch.float16), (0, more_groups, 0, more_rows)))
