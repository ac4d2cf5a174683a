"""Result files: figures with their intervals, on what and by which command, as ``docs/results/*.json``.

All have one form: ``{name, date, command, device, software, metrics: {key: {value, unit, low, high, n}}}``; some also
``rows``, the raw figures from which the metrics can be computed again, and ``notes``, what the metrics mean.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import qmeter_native

__all__ = ["Metric", "software_line", "write_result"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure.

    Attributes:
        value: The figure: the median, where there were repeats.
        unit: ``s``, ``J``, ``B``, ``GiB`` …, or ``1`` for a count or a ratio.
        low: Lowest of the repeats, or lower end of the interval; None for a single measurement.
        high: Highest of the repeats, or upper end.
        n: Number of measurements.
    """

    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    n: int = 1

    @classmethod
    def of_repeats(cls, values: Sequence[float], unit: str) -> Metric:
        """Median, lowest and highest of repeated measurements."""
        ordered = sorted(values)
        middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
        return cls(middle, unit, ordered[0], ordered[-1], len(ordered))


def write_result(
    path: Path,
    name: str,
    metrics: Mapping[str, Metric],
    *,
    device: str,
    command: str,
    packages: Sequence[str] = (),
    rows: Sequence[Mapping[str, Any]] = (),
    notes: Sequence[str] = (),
) -> None:
    """Write a result file.

    Args:
        path: The file, by custom ``docs/results/NAME.json``.
        name: What was measured.
        metrics: The figures.
        device: The machine's or GPU's name.
        command: The command that measures it again, from the repository's root.
        packages: Distributions whose versions matter, beside Python's and ours.
        rows: Raw figures, plain JSON.
        notes: What the metrics mean, and what weakens them, in sentences.
    """
    document: dict[str, Any] = {
        "name": name,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "command": command,
        "device": device,
        "software": software_line(packages),
        "metrics": {key: asdict(metric) for key, metric in metrics.items()},
    }
    document |= {"notes": list(notes)} if notes else {}
    text = json.dumps(document, indent=2, ensure_ascii=False)
    if rows:  # one a line: they are for programs
        lines = ",\n    ".join(json.dumps(row, ensure_ascii=False) for row in rows)
        text = f'{text[:-2]},\n  "rows": [\n    {lines}\n  ]\n}}'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


def software_line(packages: Sequence[str]) -> str:
    """Versions in one line."""
    found = [f"qmeter-native {qmeter_native.__version__}", f"Python {platform.python_version()}"]
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} absent")
    return ", ".join(found)
