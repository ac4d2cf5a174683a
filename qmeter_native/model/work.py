"""What the kernels of a run had to do, by the model's arithmetic, beside what they took."""

from __future__ import annotations

from dataclasses import dataclass

from qmeter_native.model.estimate import Estimate
from qmeter_native.model.op_family import OpFamily

__all__ = ["LayerRow", "WorkRow", "WorkSummary"]


@dataclass(frozen=True, slots=True)
class WorkRow:
    """All kernels of one role in the model, over all layers and steps of the traced window.

    Attributes:
        role: ``qkv_proj``, ``attention``, ``o_proj``, ``gate_up_proj``, ``down_proj``, ``lm_head``, ``input_norm`` ….
        op_family: What for.
        implementation: Who wrote the kernels that took most of the time; None if unknown.
        num_layers: Layers in which it occurs.
        calls: Launches.
        time_s: Time given to them.
        time_share: Of busy time.
        flops: Floating-point (or integer) operations that the work needs, padding left out; None if not modelled.
        least_bytes: Bytes that must move between HBM and the SMs at least once; None if not modelled.
        padding_flops: Operations spent on tokens that pad a batch to a CUDA graph's size.
        flops_per_s: ``flops / time_s``; None if not modelled.
        bytes_per_s: ``least_bytes / time_s``; None if not modelled.
        energy_j: Joules by the static policy.
    """

    role: str
    op_family: OpFamily
    implementation: str | None
    num_layers: int
    calls: int
    time_s: float
    time_share: float
    flops: int | None
    least_bytes: int | None
    padding_flops: int
    flops_per_s: float | None
    bytes_per_s: float | None
    energy_j: Estimate


@dataclass(frozen=True, slots=True)
class LayerRow:
    """All kernels of one layer of the model, over all steps.

    Attributes:
        layer: Number, from 0.
        time_s: Time given to them.
        energy_j: Joules by the static policy.
    """

    layer: int
    time_s: float
    energy_j: Estimate


@dataclass(frozen=True, slots=True)
class WorkSummary:
    """The work model's answer for a run. Shares are of busy kernel time, from 0 to 1; None where no kernel ran.

    Attributes:
        rows: Most time first.
        family_known: Kernels whose family a rule knows.
        step_known: Kernels that belong to an engine step.
        layer_known: Kernels in steps whose layer (or place outside the layers: embedding, LM head, sampling) is known.
        padding_share: Of token places computed in steps, those that were padding; None if no step says.
        reason: Why there are no rows; None if there are.
        notes: What limits the rows, one sentence each: steps that could not be placed, formats that are not known.
        layers: One entry a layer, in order; empty where there are no rows.
    """

    rows: tuple[WorkRow, ...]
    family_known: float | None
    step_known: float | None
    layer_known: float | None
    padding_share: float | None
    reason: str | None = None
    notes: tuple[str, ...] = ()
    layers: tuple[LayerRow, ...] = ()
