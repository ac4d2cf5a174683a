"""A roofline on a terminal: roofs and ridges, points by time, projections, notes. Formatting only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

from qmeter_native.model.estimate import Estimate
from qmeter_native.reporters.console.footnotes import MISSING, Footnotes
from qmeter_native.reporters.console.section import Section
from qmeter_native.reporters.console.table import Column, fitted_table, indented, plain
from qmeter_native.reporters.console.terminal import write
from qmeter_native.reporters.quantity import Scale, bar, count, percent, quantity, scale_of
from qmeter_native.roofline.ceilings import DeviceCeilings, Roof
from qmeter_native.roofline.energy_floor import EnergyCosts
from qmeter_native.roofline.point import RooflinePoint
from qmeter_native.roofline.projection import Projection
from qmeter_native.roofline.roofline import Roofline

__all__ = ["print_ceilings_of_all", "print_roofline"]

_TERA: Final = Scale(1e12, "", 2)
_BAR_WIDTH: Final = 8
_PICO: Final = 1e-12
_UNRESOLVED: Final = "? = the run does not tell its joules apart from other kernels'"
_BOUNDS: Final = (
    "bound: the lowest roof; latency = below half of it, and a launch so short (3 µs at the roof) or a grid so small "
    "that it cannot come near"
)


def print_roofline(roofline: Roofline, console: Console, top: int, next_command: str | None = None) -> None:
    """Print ``roofline`` at the console's width with the ``top`` points, ending with the natural next command."""
    width = console.width
    sections = [_ceilings(roofline, width)]
    if roofline.points:
        sections += [
            _points(roofline, top, width),
            *(_projection(roofline, one, top, width) for one in roofline.projections),
        ]
    sections.append(Section("Notes", [indented(f"! {note}", "yellow") for note in roofline.notes]))
    write(console, [part for section in sections for part in section.parts()])
    if next_command:
        console.print(Text(f"\nNext: {next_command}", "dim"), soft_wrap=True)  # a command is copied as one line


def print_ceilings_of_all(devices: Sequence[DeviceCeilings], console: Console) -> None:
    """Print one line a GPU of the database."""
    columns = [
        Column("GPU", [plain(device.gpu) for device in devices], justify="left"),
        Column("TB/s", [_tera(device.dram(), 2) for device in devices]),
    ]
    types = [name for name in ("fp16", "fp8", "int8", "fp4") if any(name in device.roofs for device in devices)]
    columns += [Column(name, [_tera(device.roofs.get(name)) for device in devices]) for name in types]
    columns += [
        Column(f"ridge {name}", [_ridge(device, name) for device in devices], rank=2 + number)
        for number, name in enumerate(types)
    ]
    columns.append(Column("verified", [_verified(device) for device in devices], 1, "left", "dim"))
    table, _ = fitted_table(columns, console.width)
    remarks = ["ridge: FLOP per byte of DRAM from which arithmetic bounds a product"]
    write(console, Section("GPU database", [table], "datasheets; dense TFLOP/s, TOP/s", remarks=remarks).parts())


def _verified(device: DeviceCeilings) -> str:
    return MISSING if device.chip is None or device.chip.verified is None else device.chip.verified.partition(":")[0]


def _tera(roof: Roof | None, decimals: int = 0) -> str:
    return MISSING if roof is None else Scale(1e12, "", decimals).text(roof.value)


def _ridge(ceilings: DeviceCeilings, operand: str) -> str:
    ridge = ceilings.ridge(operand)
    return MISSING if ridge is None else f"{ridge:,.0f}"


def _ceilings(roofline: Roofline, width: int) -> Section:
    ceilings, costs = roofline.ceilings, roofline.costs
    roofs = list(ceilings.roofs.values())
    footnotes = Footnotes()
    columns = [
        Column("roof", [roof.name for roof in roofs], justify="left"),
        Column("rate", [quantity(roof.value, roof.unit) for roof in roofs]),
        Column("95 %", [_half_width(roof.rate) for roof in roofs], 3, style="dim"),
        Column("from", ["calibration" if roof.is_measured else "datasheet" for roof in roofs], 1, "left"),
        Column("ridge FLOP/B", [_ridge(ceilings, roof.name) if roof.unit != "B/s" else MISSING for roof in roofs]),
    ]
    if costs is not None:
        columns += [
            Column("costs", [_cost(costs, roof, footnotes) for roof in roofs], 2),
            Column("balance FLOP/B", [_balance(costs, roof) for roof in roofs], 4),
        ]
    table, hidden = fitted_table(columns, width)
    remarks = ["ridge: FLOP per byte of DRAM from which arithmetic bounds a product"]
    if costs is not None and "balance FLOP/B" not in hidden:
        constant = quantity(costs.constant_w, "W")
        remarks.append(f"balance: where both cost the same joules; {constant} are drawn by a busy chip besides")
    made = f"calibrated {ceilings.date[:10]}" if ceilings.date else "by its datasheet"
    return Section(plain(ceilings.gpu), [table], made, footnotes, remarks)


def _half_width(estimate: Estimate) -> str:
    if not estimate.value or estimate.low is None or estimate.high is None:
        return MISSING
    return f"± {percent((estimate.high - estimate.low) / 2 / estimate.value)} %"


def _cost(costs: EnergyCosts, roof: Roof, footnotes: Footnotes) -> str:
    if roof.name.startswith("l2"):
        return MISSING
    is_dram = roof.name.startswith("dram")
    cost = costs.byte_j if is_dram else costs.operation_j(roof.name)
    if cost.value is None:
        return footnotes.missing(cost.reason)
    return f"{cost.value / _PICO:.3g} pJ/{'B' if is_dram else roof.unit.partition('/')[0]}"


def _balance(costs: EnergyCosts, roof: Roof) -> str:
    balance = None if roof.unit == "B/s" else costs.balance(roof.name)
    return MISSING if balance is None else f"{balance:,.0f}"


def _points(roofline: Roofline, top: int, width: int) -> Section:
    points = roofline.points[:top]
    footnotes = Footnotes()
    table, hidden = fitted_table(_point_columns(points, footnotes), width)
    known = MISSING if roofline.known_share is None else f"{percent(roofline.known_share)} %"
    lines = [f"{quantity(roofline.time_s, 's')} in {count(len(roofline.points), 'point')}, {known} of it under a roof"]
    if roofline.floor_s is not None:
        lines[0] += f"; that part would take {quantity(roofline.floor_s, 's')} at its roofs"
    remarks = [_BOUNDS]
    if any(point.run.is_resolved is False for point in points) and "energy" not in " ".join(hidden):
        remarks.append(_UNRESOLVED)
    if hidden:
        remarks.append(f"a wider terminal also shows {', '.join(title for title in hidden if title)}")
    subtitle = "" if len(points) == len(roofline.points) else f"{count(len(points))} of {count(len(roofline.points))}"
    return Section(f"Points of {plain(roofline.name)}", [table, *map(indented, lines)], subtitle, footnotes, remarks)


def _point_columns(points: Sequence[RooflinePoint], footnotes: Footnotes) -> list[Column]:
    runs = [point.run for point in points]
    time = scale_of([run.time_s.value for run in runs], "s")
    mean = scale_of([_mean(point) for point in points], "s")
    columns = [Column("point", [plain(run.label) for run in runs], justify="left", flexible="cut")]
    if _has_roles(points):
        columns.append(Column("role", [run.role or MISSING for run in runs], 1, "left"))
    if any(run.scheme for run in runs):
        columns.append(Column("scheme", [plain(run.scheme or MISSING) for run in runs], 7, "left"))
    columns += [
        Column("launches", [count(run.launches) for run in runs], 6),
        Column(f"mean {mean.unit}", [mean.text(_mean(point)) for point in points], 3),
        Column(f"time {time.unit}", [time.text(run.time_s.value or 0.0) for run in runs], 4),
        Column("share %", [percent(run.time_share) for run in runs]),
        Column("FLOP/B", [_figure(point.intensity) for point in points]),
        Column("TFLOP/s", [_rate(point.flops_per_s) for point in points], 2),
        Column("TB/s", [_rate(point.bytes_per_s) for point in points], 2),
        Column("bound", [point.bound.value for point in points], 0, "left"),
        Column("roof %", [_share(point.fraction, footnotes) for point in points]),
        Column("", [bar(point.fraction.value or 0.0, _BAR_WIDTH) for point in points], 8, "left", "cyan"),
    ]
    if any(point.traffic is not None for point in points):
        columns.append(Column("× least", [_figure(point.traffic) for point in points], 5))
    return columns + _energy_columns(points)


def _has_roles(points: Sequence[RooflinePoint]) -> bool:
    """Whether any point has a role beside its name."""
    return any(point.run.role is not None and point.run.role != point.run.name for point in points)


def _energy_columns(points: Sequence[RooflinePoint]) -> list[Column]:
    joules = [point.run.energy_j.value for point in points]
    if all(value is None for value in joules):
        return []
    scale = scale_of(joules, "J")
    cells = [
        MISSING if value is None else scale.text(value) + (" ?" if point.run.is_resolved is False else "")
        for point, value in zip(points, joules, strict=True)
    ]
    floors = [point.energy_fraction.value for point in points]
    return [
        Column(f"energy {scale.unit}", cells, 9),
        Column("floor %", [MISSING if value is None else percent(value) for value in floors], 9),
    ]


def _mean(point: RooflinePoint) -> float:
    return (point.run.time_s.value or 0.0) / max(point.run.launches, 1)


def _rate(value: float | None) -> str:
    return MISSING if value is None else _TERA.text(value)


def _figure(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.2f}" if value < 10 else f"{value:,.0f}"


def _share(fraction: Estimate, footnotes: Footnotes) -> str:
    return footnotes.missing(fraction.reason) if fraction.value is None else percent(fraction.value)


def _projection(roofline: Roofline, projection: Projection, top: int, width: int) -> Section:
    points = list(zip(roofline.points, projection.points, strict=True))[:top]
    time = scale_of([moved.time_s.value for _, moved in points], "s")
    columns = [
        Column("point", [plain(point.run.label) for point, _ in points], justify="left", flexible="cut"),
        Column(f"here {time.unit}", [time.text(point.run.time_s.value or 0.0) for point, _ in points]),
        Column(f"there {time.unit}", [time.text(moved.time_s.value or 0.0) for _, moved in points]),
        Column("from", [_end(moved.time_s.low, time) for _, moved in points], 1, style="dim"),
        Column("to", [_end(moved.time_s.high, time) for _, moved in points], 1, style="dim"),
        Column("roof there", [moved.roof or MISSING for _, moved in points], 3, "left"),
    ]
    if _has_roles([point for point, _ in points]):
        columns.insert(1, Column("role", [point.run.role or MISSING for point, _ in points], 2, "left"))
    if any(moved.fallback for _, moved in points):
        columns.append(Column("runs as", [moved.fallback or "" for _, moved in points], 0, "left"))
    table, _ = fitted_table(columns, width)
    lines = [f"all points: {_total(roofline.time_s, projection)}"]
    return Section(
        f"On {plain(projection.gpu)}", [table, *map(indented, lines)], "a projection", remarks=projection.assumptions
    )


def _end(value: float | None, scale: Scale) -> str:
    return MISSING if value is None else scale.text(value)


def _total(here_s: float, projection: Projection) -> str:
    time, speedup = projection.time_s, projection.speedup
    if time.value is None or speedup.value is None:
        return MISSING
    told = f"{quantity(here_s, 's')} here, {quantity(time.value, 's')} there: {speedup.value:.2f} × as fast"
    return told if speedup.low is None else f"{told} ({speedup.low:.2f} to {speedup.high:.2f})"
