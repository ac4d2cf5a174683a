"""Kernel → layer and role, for every kernel of a step.

Inside a replayed CUDA graph there are no ranges, so places come from the order of kernels (`step_layout`). A step's
sequence is that of its process's streams that carry products or attention, in order of start; what else ran in the
step (input preparation, copies) stands outside the layers. Steps with the same sequence, such as replays of one graph,
are placed once: sequences are told apart by a 64-bit hash, which 10^5 different ones confuse with probability 3e-10.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.roles import Part, parts_of_classes
from qmeter_native.attribution.step_layout import StepLayout, step_layout
from qmeter_native.model.capture import Capture
from qmeter_native.work.role import UNKNOWN_ROLE, Role

__all__ = ["KernelPlaces", "kernel_places", "layer_agreement"]

_Array = NDArray[Any]

_MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that its powers never become 0: Knuth's multiplicative hashing, 2^64 over the golden ratio."""
_CONFLICT: Final = "a node of a CUDA graph would have two places"


@dataclass(frozen=True, slots=True)
class KernelPlaces:
    """Where each kernel stands in the model.

    Attributes:
        layer: int16, one entry a row of `KernelTable`: the layer; -1 = outside the layers, or unknown.
        role: int8, `Role`; `UNKNOWN_ROLE` in steps that could not be placed and outside steps.
        is_placed: Mask over rows of `StepTable`: its kernels have places.
        reasons: Why steps could not be placed, with the number of steps.
    """

    layer: _Array
    role: _Array
    is_placed: _Array
    reasons: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Sequences:
    """Kernels of all steps that count for the order: kernel rows, sorted by step and start, and one entry a step."""

    kernel: _Array
    step: _Array
    first: _Array
    length: _Array


def kernel_places(capture: Capture, step_of_kernel: _Array, num_layers: int) -> KernelPlaces:
    """Place the kernels of every step of a model of ``num_layers`` layers.

    Args:
        capture: The capture.
        step_of_kernel: That of `qmeter_native.attribution.steps.kernel_steps`.
        num_layers: Layers of the model.
    """
    count = len(capture.kernels)
    places = KernelPlaces(
        layer=np.full(count, -1, np.int16),
        role=np.full(count, UNKNOWN_ROLE, np.int8),
        is_placed=np.zeros(len(capture.steps), bool),
        reasons={},
    )
    parts = parts_of_classes(capture.kernel_classes)[capture.kernels.class_id]
    sequences = _sequences(capture, step_of_kernel, parts)
    if len(sequences.step) == 0:
        return places
    ordered = parts[sequences.kernel]
    group, examples = _same(_hashes(ordered, sequences), sequences.length)
    layouts = [step_layout(_one(ordered, sequences, example).tolist(), num_layers) for example in examples]
    conflicts = _conflicts(capture, sequences, group, layouts)
    _count_reasons(places.reasons, group, layouts, conflicts)
    is_good = np.array([isinstance(layout, StepLayout) for layout in layouts])[group] & ~conflicts
    places.is_placed[sequences.step[is_good]] = True
    in_placed = places.is_placed[step_of_kernel] & (step_of_kernel >= 0)
    places.role[in_placed] = Role.OTHER
    _write(places, sequences, group, layouts, is_good)
    return places


def layer_agreement(places: KernelPlaces, known_layer: _Array) -> float | None:
    """Part of the kernels with a layer both here and in ``known_layer`` (-1 = unknown) that have the same one.

    ``known_layer`` comes from somewhere else, such as ranges of an eager run. None if no kernel has both.
    """
    both = (places.layer >= 0) & (known_layer >= 0)
    return float((places.layer[both] == known_layer[both]).mean()) if both.any() else None


def _sequences(capture: Capture, step_of_kernel: _Array, parts: _Array) -> _Sequences:
    """The kernels of each step on the streams of its process that carry products or attention anywhere."""
    kernels = capture.kernels
    in_step = step_of_kernel >= 0
    is_anchor = in_step & ((parts == Part.GEMM) | (parts == Part.ATTENTION))
    is_main = np.zeros(len(kernels), bool)
    for process in np.unique(capture.steps.process):
        is_mine = in_step & (kernels.process == process)
        is_main |= is_mine & np.isin(kernels.stream, np.unique(kernels.stream[is_anchor & is_mine]))
    kernel = np.flatnonzero(is_main)
    step = step_of_kernel[kernel]
    if (step[1:] < step[:-1]).any():
        order = np.argsort(step, kind="stable")
        kernel, step = kernel[order], step[order]
    first = np.flatnonzero(np.concatenate([[True], step[1:] != step[:-1]])) if len(step) else np.empty(0, np.int64)
    return _Sequences(kernel, step[first], first, np.diff(np.concatenate([first, [len(step)]])))


def _hashes(values: _Array, sequences: _Sequences) -> _Array:
    """A hash of each step's values, in order: ``Σ mix(value) · multiplier^position`` modulo 2^64."""
    if len(sequences.first) == 0:
        return np.empty(0, np.uint64)
    position = np.arange(len(values)) - np.repeat(sequences.first, sequences.length)
    powers = np.cumprod(np.full(int(sequences.length.max()), _MULTIPLIER))
    mixed = (values.astype(np.uint64) + np.uint64(1)) * _MULTIPLIER
    mixed ^= mixed >> np.uint64(29)
    hashes: _Array = np.add.reduceat(mixed * powers[position], sequences.first)
    return hashes


def _same(*keys: _Array) -> tuple[_Array, _Array]:
    """Group equal rows: the group of each, and one example of each group."""
    rows = np.stack([key.astype(np.uint64) for key in keys], axis=1)
    _, examples, group = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return group.reshape(-1), examples


def _one(values: _Array, sequences: _Sequences, index: int) -> _Array:
    """The values of one step."""
    first = sequences.first[index]
    return values[first : first + sequences.length[index]]


def _conflicts(capture: Capture, sequences: _Sequences, group: _Array, layouts: list[StepLayout | str]) -> _Array:
    """Mask over steps: a graph node has another place here than in a step before it.

    A node is one place in the model whatever replays it. Steps that replay the same nodes in the same order have the
    same places, so one example of each such sequence is compared.
    """
    node = capture.kernels.graph_node[sequences.kernel]
    keys = node ^ (capture.kernels.process[sequences.kernel].astype(np.uint64) << np.uint64(48))
    replay, examples = _same(_hashes(keys, sequences), group)
    place_of_node: dict[int, tuple[int, int]] = {}
    is_conflict = np.zeros(len(examples), bool)
    for number in np.argsort(examples).tolist():
        example = examples[number]
        layout = layouts[group[example]]
        if isinstance(layout, str):
            continue
        nodes = _one(node, sequences, example)
        graph_keys = _one(keys, sequences, example)
        for at in np.flatnonzero(nodes).tolist():
            place = (layout.layer[at], layout.role[at])
            if place_of_node.setdefault(int(graph_keys[at]), place) != place:
                is_conflict[number] = True
    return is_conflict[replay]


def _count_reasons(reasons: dict[str, int], group: _Array, layouts: list[StepLayout | str], conflicts: _Array) -> None:
    num_steps = np.bincount(group, minlength=len(layouts)).tolist()
    num_conflicts = np.bincount(group, conflicts, len(layouts)).astype(np.int64).tolist()
    counts: Counter[str] = Counter()
    for layout, steps, conflicting in zip(layouts, num_steps, num_conflicts, strict=True):
        if isinstance(layout, str):
            counts[layout] += steps
        elif conflicting:
            counts[_CONFLICT] += conflicting
    reasons.update(counts.most_common())


def _write(
    places: KernelPlaces, sequences: _Sequences, group: _Array, layouts: list[StepLayout | str], is_good: _Array
) -> None:
    """Copy each group's places to all its steps at once."""
    good = [layout if isinstance(layout, StepLayout) else StepLayout([], []) for layout in layouts]
    start = np.concatenate([[0], np.cumsum([len(layout.layer) for layout in good])])[group]
    layer = np.array([value for layout in good for value in layout.layer], np.int16)
    role = np.array([value for layout in good for value in layout.role], np.int8)
    is_written = np.repeat(is_good, sequences.length)
    source = np.arange(len(sequences.kernel)) + np.repeat(start - sequences.first, sequences.length)
    places.layer[sequences.kernel[is_written]] = layer[source[is_written]]
    places.role[sequences.kernel[is_written]] = role[source[is_written]]
