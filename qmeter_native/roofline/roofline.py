"""A roofline: the roofs of a GPU, the points under them, and the same points on other GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from qmeter_native.attribution.attributed import AttributedCapture
from qmeter_native.attribution.profiles import profiles_for
from qmeter_native.attribution.usage import DeviceUsage
from qmeter_native.errors import UsageError
from qmeter_native.model.capture import Capture
from qmeter_native.model.device_profile import DeviceProfile
from qmeter_native.model.kernel_benchmark import KernelBenchmark
from qmeter_native.roofline.benchmark_runs import benchmark_runs
from qmeter_native.roofline.capture_runs import Grouping, capture_runs
from qmeter_native.roofline.ceilings import DeviceCeilings
from qmeter_native.roofline.energy_floor import EnergyCosts
from qmeter_native.roofline.kernel_filter import KernelFilter
from qmeter_native.roofline.point import Bound, KernelRun, RooflinePoint, place
from qmeter_native.roofline.projection import Projection, project

__all__ = ["Roofline", "benchmark_roofline", "capture_roofline", "device_roofline"]

_DATASHEET: Final = "Not calibrated: the roofs are the datasheet's, which no kernel reaches. `qmeter-native calibrate`."
_LEAST: Final = (
    "No counters: bytes are the least that must move by the work model. What a kernel reads twice is not seen, and "
    "what L2 keeps may carry a point above its roof."
)
_ABOVE: Final = "Points above their roof: ceilings are medians of bursts, and a datasheet's clock may be exceeded."
_MODELLED: Final = "Joules without counters are modelled with the costs that the floor has too: read them with care."


@dataclass(frozen=True, slots=True)
class Roofline:
    """What `qmeter-native roofline` prints.

    Attributes:
        name: Of the capture or benchmark; empty for a GPU alone.
        ceilings: Of the GPU that the points ran on.
        costs: Joules of its bytes and operations; None if not known.
        points: Most time first.
        time_s: Of all points.
        known_share: Part of it whose points have a roof.
        floor_s: Least time of the points that have one.
        projections: On other GPUs.
        notes: What limits the figures, in sentences.
    """

    name: str
    ceilings: DeviceCeilings
    costs: EnergyCosts | None
    points: tuple[RooflinePoint, ...] = ()
    time_s: float = 0.0
    known_share: float | None = None
    floor_s: float | None = None
    projections: tuple[Projection, ...] = ()
    notes: tuple[str, ...] = ()


def device_roofline(ceilings: DeviceCeilings, costs: EnergyCosts | None = None) -> Roofline:
    """The roofs of a GPU alone."""
    return Roofline("", ceilings, costs, notes=() if ceilings.is_measured else (_DATASHEET,))


def capture_roofline(
    capture: Capture,
    name: str,
    chosen: KernelFilter,
    by: Grouping = "kernel",
    profile: DeviceProfile | None = None,
    ceilings: DeviceCeilings | None = None,
    others: Sequence[DeviceCeilings] = (),
) -> Roofline:
    """Points of a capture.

    Args:
        capture: The capture; only its measured window counts.
        name: What to call it.
        chosen: Which kernels.
        by: What is one point.
        profile: Of its GPU; None for the one that it carries, else what its datasheet lets expect.
        ceilings: Roofs to use instead of the profile's.
        others: Roofs of GPUs to project to.

    Raises:
        UsageError: No kernel is left, or the roofs of its GPU are not known.
        ProfileError: The profile is of another GPU.
    """
    profiles = {} if profile is None else profiles_for(capture.manifest, profile)
    attributed = AttributedCapture.of(capture, profiles)
    usages, left_out = _alike(attributed.usages)
    used = usages[0].profile
    roofs = ceilings or DeviceCeilings.of_profile(used)
    if not roofs.roofs:
        hint = "Name its roofs: --gpu NAME takes a datasheet, --profile FILE a calibration."
        raise UsageError(f"the roofs of {used.name or 'the device of this capture'} are not known", hint)
    costs = EnergyCosts(used.power_model)
    notes = [f"{name} left out: its kernels are not under these roofs." for name in left_out]
    runs = capture_runs(attributed, usages, chosen, by)
    return _roofline(name, roofs, costs, runs, others, notes)


def benchmark_roofline(
    benchmark: KernelBenchmark,
    name: str,
    ceilings: DeviceCeilings,
    costs: EnergyCosts | None = None,
    others: Sequence[DeviceCeilings] = (),
) -> Roofline:
    """Points of a kernel benchmark: each row is one."""
    return _roofline(name, ceilings, costs, benchmark_runs(benchmark), others, [])


def _alike(usages: Sequence[DeviceUsage]) -> tuple[list[DeviceUsage], list[str]]:
    """The devices of the kind that was busiest, and the names of other kinds that ran kernels."""
    busy = [usage for usage in usages if usage.busy_ns]
    if not busy:
        raise UsageError("the capture has no kernels in its measured window")
    busiest = max(busy, key=lambda usage: usage.busy_ns).device.name
    others = dict.fromkeys(usage.device.name for usage in busy if usage.device.name != busiest)
    return [usage for usage in busy if usage.device.name == busiest], list(others)


def _roofline(
    name: str,
    ceilings: DeviceCeilings,
    costs: EnergyCosts | None,
    runs: Sequence[KernelRun],
    others: Sequence[DeviceCeilings],
    notes: Sequence[str],
) -> Roofline:
    points = tuple(place(run, ceilings, costs) for run in runs)
    time_s = sum(run.time_s.value or 0.0 for run in runs)
    known = [point for point in points if point.bound is not Bound.UNKNOWN]
    known_s = sum(point.run.time_s.value or 0.0 for point in known)
    return Roofline(
        name=name,
        ceilings=ceilings,
        costs=costs,
        points=points,
        time_s=time_s,
        known_share=known_s / time_s if time_s else None,
        floor_s=sum(point.floor_s or 0.0 for point in known) if known else None,
        projections=tuple(project(points, ceilings, other) for other in others),
        notes=(*notes, *_notes(ceilings, known)),
    )


def _notes(ceilings: DeviceCeilings, known: Sequence[RooflinePoint]) -> list[str]:
    is_least = any(point.run.demand is not None and point.run.demand.source == "work model" for point in known)
    has_joules = any(point.run.energy_j.value is not None and not point.run.is_resolved for point in known)
    is_above = any((point.fraction.value or 0.0) > 1 for point in known)
    told = {
        _DATASHEET: not ceilings.is_measured,
        _LEAST: is_least,
        _ABOVE: is_above,
        _MODELLED: is_least and has_joules,
    }
    return [note for note, applies in told.items() if applies]
