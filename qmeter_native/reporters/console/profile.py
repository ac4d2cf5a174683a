"""A device profile on a terminal: ceilings, power model, sensor, fit, notes. Formatting only."""

from __future__ import annotations

import math
from typing import Final

from rich.console import Console
from rich.text import Text

from qmeter_native.model.device_profile import Ceiling, DeviceProfile, ModelFit, SensorModel
from qmeter_native.model.estimate import Estimate
from qmeter_native.model.power_model import PowerFeature, PowerModel
from qmeter_native.reporters.console.footnotes import MISSING, Footnotes
from qmeter_native.reporters.console.section import Section
from qmeter_native.reporters.console.table import Column, fitted_table, indented, plain
from qmeter_native.reporters.console.terminal import write
from qmeter_native.reporters.quantity import count, percent, quantity, scale_of

__all__ = ["print_profile"]

_FEATURES: Final = {
    PowerFeature.DRAM_BYTES: ("DRAM", "J/B"),
    PowerFeature.L2_BYTES: ("L2", "J/B"),
    PowerFeature.FP16_FLOP: ("tensor pipes, 16-bit float", "J/FLOP"),
    PowerFeature.FP8_FLOP: ("tensor pipes, 8-bit float", "J/FLOP"),
    PowerFeature.INT8_OP: ("tensor pipes, 8-bit integer", "J/OP"),
    PowerFeature.INSTRUCTIONS: ("warp instructions", "J"),
    PowerFeature.SM_SECONDS: ("SMs, whatever they do", "W"),
}
_PICO: Final = 1e-12
_Z: Final = 1.96


def print_profile(profile: DeviceProfile, console: Console, next_command: str | None = None) -> None:
    """Print ``profile`` at the console's width, ending with the natural next command."""
    width = console.width
    sections = [
        _header(profile),
        _ceilings(profile.ceilings, width),
        _power_section(profile.power_model, width),
        _sensor_section(profile.sensor, width),
        _fit_section(profile.fit, width),
        Section("Notes", [indented(f"! {note}", "yellow") for note in profile.notes]),
    ]
    write(console, [part for section in sections for part in section.parts()])
    if next_command:
        console.print(Text(f"\nNext: {next_command}", "dim"), soft_wrap=True)  # a command is copied as one line


def _header(profile: DeviceProfile) -> Section:
    source = {"calibrated": "calibrated", "datasheet": "by its datasheet"}.get(profile.power_model.source, "")
    made = f"{profile.date} · " if profile.date else ""
    driver = f"driver {plain(str(profile.software['driver']))} · " if "driver" in profile.software else ""
    lines = [indented(f"{plain(profile.uuid)}"), indented(f"{made}{driver}power model {source}")]
    return Section(plain(profile.name), [line for line in lines if line])


def _ceilings(ceilings: tuple[Ceiling, ...], width: int) -> Section:
    if not ceilings:
        return Section("Ceilings")
    footnotes = Footnotes()
    measured, intervals, datasheet, shares = [], [], [], []
    for ceiling in ceilings:
        scale = scale_of([ceiling.measured.value, ceiling.datasheet], ceiling.unit)
        has_value = ceiling.measured.value is not None
        measured.append(footnotes.estimate(ceiling.measured, scale) + (f" {scale.unit}" if has_value else ""))
        intervals.append(_half_width(ceiling.measured))
        datasheet.append(MISSING if ceiling.datasheet is None else f"{scale.text(ceiling.datasheet)} {scale.unit}")
        shares.append(_share(ceiling))
    columns = [
        Column("", [ceiling.name for ceiling in ceilings], justify="left"),
        Column("measured", measured),
        Column("95 %", intervals, rank=2, style="dim"),
        Column("datasheet", datasheet),
        Column("% of it", shares, rank=1),
        Column("SM MHz", [_mhz(ceiling.clock_mhz) for ceiling in ceilings], rank=3, style="dim"),
        Column("kernel", [plain(ceiling.kernel) for ceiling in ceilings], 4, "left", "dim", flexible="cut"),
    ]
    table, _ = fitted_table(columns, width)
    return Section("Ceilings", [table], "what kernels reach, in short bursts", footnotes)


def _half_width(estimate: Estimate) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None or not estimate.value:
        return MISSING
    return f"± {percent((estimate.high - estimate.low) / 2 / estimate.value)} %"


def _share(ceiling: Ceiling) -> str:
    if ceiling.measured.value is None or ceiling.datasheet is None:
        return MISSING
    return percent(ceiling.measured.value / ceiling.datasheet)


def _mhz(mhz: float | None) -> str:
    return MISSING if mhz is None else f"{mhz:,.0f}"


def _power_section(model: PowerModel, width: int) -> Section:
    names, values, units, errors, components = [], [], [], [], []
    for position, feature in enumerate(model.features):
        name, unit = _FEATURES[feature]
        joules, variance = float(model.coefficient[position]), float(model.covariance[position, position])
        is_rate = unit == "W"
        names.append(name)
        values.append(f"{joules:,.1f}" if is_rate else f"{joules / _PICO:,.3g}")
        units.append(unit if is_rate else f"p{unit}")
        is_unseen = feature in model.unseen
        errors.append("not seen" if is_unseen else _relative(math.sqrt(max(variance, 0.0)), joules))
        components.append(feature.component.value)
    names.append("chip that is active")
    values.append(f"{model.active_w:,.1f}")
    units.append("W")
    errors.append(_relative(model.active_error_w, model.active_w))
    components.append("static")
    columns = [
        Column("", names, justify="left"),
        Column("costs", values),
        Column("", units, justify="left", style="dim"),
        Column("95 %", errors),
        Column("component", components, 1, "left", "dim"),
    ]
    table, _ = fitted_table(columns, width)
    return Section("Power model", [table, *_power_lines(model)], f"at an SM clock of {model.reference_mhz:,.0f} MHz")


def _power_lines(model: PowerModel) -> list[Text]:
    grows = f", {model.idle_w_per_k:+.2f} W a kelvin" if model.idle_w_per_k else ""
    errors = ", ".join(f"{mode.value} {percent(error)} %" for mode, error in model.discrepancy.items())
    lines = [
        f"idle {model.idle_w:.1f} W at {model.idle_temperature_c:.0f} °C{grows}",
        f"with the SM clock core events go to the power {model.core_exponent:.2f}, "
        f"active power to {model.active_exponent:.2f}",
        f"kernels differ from it by: {errors}; windows by {percent(model.window_error)} %",
    ]
    return [Text(f"  {line}", "dim") for line in lines]


def _relative(error: float, value: float) -> str:
    return f"± {percent(_Z * error / value)} %" if value else MISSING


def _sensor_section(sensor: SensorModel | None, width: int) -> Section:
    if sensor is None:
        return Section("Sensor", [indented(f"{MISSING} not measured")])
    rows: dict[str, tuple[Estimate, str]] = {
        "energy counter steps every": (sensor.tick_s, "s"),
        "one call for it takes": (sensor.counter_call_s, "s"),
        "power sample every": (sensor.power_sample_s, "s"),
        "averages over": (sensor.window_s, "s"),
        "is late by": (sensor.lag_s, "s"),
        "energy counter looks every": (sensor.counter_look_s, "s"),
        "through a low-pass of": (sensor.counter_time_constant_s, "s"),
        "and before the step by": (sensor.counter_lag_s, "s"),
        "spread over the pulses' phase": (sensor.phase_error, ""),
        "  beyond what the looks explain": (sensor.phase_error_seen, ""),
    }
    footnotes = Footnotes()
    values, intervals = [], []
    for estimate, unit in rows.values():
        values.append(footnotes.missing(estimate.reason) if estimate.value is None else _figure(estimate.value, unit))
        intervals.append(_interval(estimate, unit))
    columns = [
        Column("", [*rows, "spread of equal windows"], justify="left"),
        Column("measured", [*values, f"{percent(sensor.window_error)} %"]),
        Column("95 %", [*intervals, MISSING], rank=1, style="dim"),
    ]
    table, _ = fitted_table(columns, width)
    return Section("Sensor", [table], footnotes=footnotes)


def _interval(estimate: Estimate, unit: str) -> str:
    if estimate.low is None or estimate.high is None:
        return MISSING
    return f"{_figure(estimate.low, unit)} to {_figure(estimate.high, unit)}"


def _figure(value: float, unit: str) -> str:
    return quantity(value, unit) if unit else f"{percent(value)} %"


def _fit_section(fit: ModelFit | None, width: int) -> Section:
    if fit is None:
        return Section("Fit", [indented(f"{MISSING} no power model was fitted")])
    lines = [
        f"{count(fit.num_windows, 'window')} left out: median error {percent(fit.window_error_median)} %, "
        f"95th percentile {percent(fit.window_error_p95)} %",
        f"{count(fit.num_kernels, 'kernel')} left out: median error {percent(fit.kernel_error_median)} %, "
        f"95th percentile {percent(fit.kernel_error_p95)} %",
    ]
    body = [indented(line) for line in lines]
    if fit.kernels:
        worst = sorted(fit.kernels.items(), key=lambda entry: -abs(entry[1]))
        columns = [
            Column("kernel left out", [plain(name) for name, _ in worst], justify="left", flexible="cut"),
            Column("error %", [percent(error) for _, error in worst]),
        ]
        body.append(fitted_table(columns, width)[0])
    return Section("Fit", body, "on what the fit did not see")
