"""What was measured: devices and engine, and where the engine ran otherwise than it was asked to."""

from __future__ import annotations

from typing import Any

from qmeter_native.model.manifest import DeviceInfo, EngineInfo
from qmeter_native.model.report import AttributionReport
from qmeter_native.reporters.console.section import Section
from qmeter_native.reporters.console.table import indented, plain
from qmeter_native.reporters.quantity import quantity

__all__ = ["device_label", "header_section"]


def device_label(device: DeviceInfo, num_devices: int) -> str:
    """``cuda:0``; empty if there is only one device, which needs no name."""
    return f"{device.kind}:{device.index}" if num_devices > 1 else ""


def header_section(report: AttributionReport) -> Section:
    """The capture's name over its devices and engine."""
    lines = [_device_line(device, len(report.devices)) for device in report.devices]
    if report.engine is not None:
        lines += _engine_lines(report.engine)
    return Section(plain(report.name), [indented(line) for line in lines])


def _device_line(device: DeviceInfo, num_devices: int) -> str:
    parts = [f"{device_label(device, num_devices)} {device.name}".strip()]
    if device.energy_source:
        parts.append(f"energy from {device.energy_source}")
    else:
        parts.append("no energy source")
    if device.idle_power_w is not None:
        window = f" over {quantity(device.idle_window_s, 's')}" if device.idle_window_s else ""
        parts.append(f"idle {quantity(device.idle_power_w, 'W')}{window}")
    return " · ".join(parts)


def _engine_lines(engine: EngineInfo) -> list[str]:
    """The engine and its model; then each setting that did not become what was asked for (``auto_gptq`` is GPTQ)."""
    lines = [f"{engine.model} on {engine.name} {engine.version}".rstrip()]
    for key, asked in engine.requested.items():
        ran = engine.effective.get(key, asked)
        if asked not in (None, "auto") and _said(ran) not in (_said(asked), f"auto_{asked}"):
            lines.append(f"{key.replace('_', ' ')}: asked for {_said(asked)}, ran {_said(ran)}")
    return lines


def _said(setting: Any) -> str:
    """A setting in words: on and off, and the parts of one that has several, unless they agree."""
    if isinstance(setting, bool):
        return "on" if setting else "off"
    if isinstance(setting, dict):
        parts = {key: _said(value) for key, value in setting.items()}
        same = set(parts.values())
        return same.pop() if len(same) == 1 else ", ".join(f"{key} {value}" for key, value in parts.items())
    return str(setting)
