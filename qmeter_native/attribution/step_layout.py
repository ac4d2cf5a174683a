"""Where each kernel of one step stands in the model, told by the order in which the kernels ran.

A decoder repeats one unit: QKV projection, rotary embedding, cache write, attention, output projection, norm, gate and
up projection, activation, down projection, norm. Attention is what tells it best: products of which nothing but
attention's own kernels lie between two of them belong to one layer, so there must be as many groups of attention
kernels as layers. Between two groups the products count the rest: output, gate and up (one or two), down, QKV (one or
three). Anything that does not fit this is left unknown, with the reason; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from qmeter_native.attribution.roles import Part
from qmeter_native.work.role import Role

__all__ = ["StepLayout", "step_layout"]

_SPLITS: Final = {4: (1, 1), 5: (1, 2), 6: (3, 1), 7: (3, 2)}
"""Products between two attentions → how many of them are QKV, and gate and up."""


@dataclass(frozen=True, slots=True)
class StepLayout:
    """Layer (-1 = outside the layers) and `Role` of each kernel of a sequence."""

    layer: list[int]
    role: list[int]


def step_layout(parts: Sequence[int], num_layers: int) -> StepLayout | str:
    """Place the kernels of one step, given as `Part` in stream order, or say why they cannot be placed."""
    if Part.MOE in parts:
        return "it has a mixture of experts, whose layers are not resolved"
    attentions = _attention_groups(parts)
    if len(attentions) != num_layers:
        return f"it has {len(attentions)} groups of attention kernels, and the model {num_layers} layers"
    if num_layers < 2:
        return "a model of one layer has nothing that repeats"
    products = [at for at, part in enumerate(parts) if part == Part.GEMM]
    bounds = [-1, *(first for first, _ in attentions), len(parts)]
    between = [[at for at in products if low < at < high] for low, high in pairwise(bounds)]
    counts = {len(found) for found in between[1:-1]}
    splits = _SPLITS.get(counts.pop()) if len(counts) == 1 else None
    if splits is None:
        return "the matrix products between its attention kernels fit no dense decoder layer"
    num_qkv, num_gate = splits
    if len(between[0]) < num_qkv or len(between[-1]) < num_gate + 2:
        return "matrix products of its first or last layer are missing"
    return _place(parts, attentions, between, num_qkv, num_gate)


def _attention_groups(parts: Sequence[int]) -> list[tuple[int, int]]:
    """First and last attention kernel of each run without a product in between; helpers alone are no run."""
    groups: list[tuple[int, int]] = []
    is_open = False
    for at, part in enumerate(parts):
        if part == Part.GEMM:
            is_open = False
        elif part == Part.ATTENTION:
            groups[-1:] = [(groups[-1][0], at)] if is_open else [*groups[-1:], (at, at)]
            is_open = True
        elif part in (Part.ATTENTION_HELPER, Part.COUNTER_RESET) and is_open:
            groups[-1] = (groups[-1][0], at)
    return groups


def _place(
    parts: Sequence[int], attentions: list[tuple[int, int]], between: list[list[int]], num_qkv: int, num_gate: int
) -> StepLayout:
    """Place a step that fits; ``between`` are the products before, between and after the groups of attention."""
    writer = _Writer(parts)
    qkv = between[0][-num_qkv:]
    down = num_gate + 1
    writer.opening(qkv[0], between[1][down], between[1][down + 1])
    for layer, (attention, products) in enumerate(zip(attentions, between[1:], strict=True)):
        writer.attention_block(layer, qkv, attention)
        writer.mlp_block(layer, attention[1], products[0], products[1:down], products[down])
        qkv = products[down + 1 :]
        if layer + 1 < len(attentions):
            writer.norm(layer + 1, products[down], qkv[0])
    writer.head(between[-1][down], qkv)
    return writer.layout


class _Writer:
    """Writes places into a step, stretch by stretch."""

    def __init__(self, parts: Sequence[int]) -> None:
        self._parts = list(parts)
        self._norm: list[int] = []
        self.layout = StepLayout([-1] * len(parts), [int(Role.OTHER)] * len(parts))

    def opening(self, qkv: int, down: int, next_qkv: int) -> None:
        """All before the first QKV product. The first norm is what ends like the norm between two layers.

        Args:
            qkv: The first QKV product.
            down: The first layer's down projection.
            next_qkv: The second layer's first QKV product.
        """
        self._norm = self._parts[self._end_of_product(down) : next_qkv]
        start = qkv - _common(self._parts[:qkv][::-1], self._norm[::-1])
        self._fill(0, start, qkv, Role.INPUT_NORM, Role.QKV_PROJ)
        for at, part in enumerate(self._parts[:start]):
            if part == Part.EMBEDDING:
                self.layout.role[at] = Role.EMBEDDING
            elif part in (Part.ATTENTION_HELPER, Part.COMMUNICATION):
                self._fill(-1, at, at + 1, Role.OTHER, Role.OTHER)

    def attention_block(self, layer: int, qkv: list[int], attention: tuple[int, int]) -> None:
        """From the first QKV product to the last attention kernel."""
        first, last = attention
        writes = [at for at in range(qkv[-1], first) if self._parts[at] == Part.KV_WRITE]
        written = writes[-1] + 1 if writes else first
        write = writes[0] if writes else first
        self._fill(layer, qkv[0], qkv[-1], Role.ROPE, Role.QKV_PROJ, Role.QKV_PROJ)
        self._fill(layer, qkv[-1], write, Role.ROPE, Role.ATTENTION, Role.QKV_PROJ)
        self._fill(layer, write, written, Role.KV_WRITE, Role.KV_WRITE)
        self._fill(layer, written, last + 1, Role.ATTENTION, Role.ATTENTION)

    def mlp_block(self, layer: int, attention: int, output: int, gate: list[int], down: int) -> None:
        """From the last attention kernel to the end of the down projection."""
        self._fill(layer, attention + 1, output, Role.O_PROJ, Role.O_PROJ)
        self._fill(layer, output, gate[0], Role.POST_NORM, Role.GATE_UP_PROJ, Role.O_PROJ)
        self._fill(layer, gate[0], gate[-1], Role.ACTIVATION, Role.GATE_UP_PROJ, Role.GATE_UP_PROJ)
        self._fill(layer, gate[-1], down, Role.ACTIVATION, Role.DOWN_PROJ, Role.GATE_UP_PROJ)
        self._fill(layer, down, self._end_of_product(down), Role.DOWN_PROJ, Role.DOWN_PROJ, Role.DOWN_PROJ)

    def norm(self, layer: int, down: int, qkv: int) -> None:
        """Between the down projection of the layer before and the first QKV product of ``layer``."""
        self._fill(layer, self._end_of_product(down), qkv, Role.INPUT_NORM, Role.QKV_PROJ)

    def head(self, down: int, products: list[int]) -> None:
        """All after the last down projection. The final norm is what begins like the norm between two layers."""
        start = self._end_of_product(down)
        end = start + _common(self._parts[start:], self._norm)
        self._fill(-1, start, end, Role.FINAL_NORM, Role.LM_HEAD)
        if products:
            self._fill(-1, end, products[0], Role.OTHER, Role.LM_HEAD)
            self._fill(-1, products[0], products[-1], Role.LM_HEAD, Role.LM_HEAD, Role.LM_HEAD)
            self._fill(-1, products[-1], len(self._parts), Role.SAMPLING, Role.SAMPLING, Role.LM_HEAD)

    def _end_of_product(self, product: int) -> int:
        """Where a product ends that is followed by its split-K reduction, or by adding up the ranks' parts."""
        end = product + 1
        while end < len(self._parts) and self._parts[end] in (Part.GEMM_REDUCTION, Part.COMMUNICATION):
            end += 1
        return end

    def _fill(self, layer: int, start: int, end: int, inside: Role, operand: Role, product: Role = Role.OTHER) -> None:
        """Write a stretch: products with their reductions, and what prepares the next one, differ from the rest."""
        special = {
            Part.GEMM: product,
            Part.GEMM_REDUCTION: product,
            Part.OPERAND: operand,
            Part.ATTENTION: Role.ATTENTION,
            Part.ATTENTION_HELPER: Role.ATTENTION,
            Part.COMMUNICATION: Role.COMMUNICATION,
        }
        for at in range(start, end):
            self.layout.layer[at] = layer
            self.layout.role[at] = special.get(Part(self._parts[at]), inside)


def _common(one: list[int], other: list[int]) -> int:
    """Length of the longest beginning that two sequences share."""
    pairs = zip(one, other, strict=False)
    return next((index for index, (left, right) in enumerate(pairs) if left != right), min(len(one), len(other)))
