"""Square waves of load, which show how a sensor sees power; each is a range of the capture, named after what it is."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from threading import Event
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from qmeter_native.capture.session import Session

__all__ = ["SensorWave", "run_sensor_loads", "sensor_loads"]

_PREFIX: Final = "sensor:"
_TICK_S: Final = 0.1
"""Time between two ticks of NVML's counter on data-centre parts: pulses of this period meet each tick at one phase."""

_PULSE_DUTY: Final = 0.25
_SWEEPS: Final = ((0.0202, 150), (0.0257, 110), (0.0703, 30))
"""Periods that no look at every 10, 20, 25 or 50 ms keeps step with; the first meets looks at every 20 ms at all phases
within 2 s. With how many of them take about 2 to 3 s."""
_NUM_PHASES: Final = {False: 8, True: 4}
"""By whether the calibration is quick."""

_CHUNK_S: Final = 0.01
_TUNING_ROUNDS: Final = 2048
_SPIN_S: Final = 0.001
"""`time.sleep` may oversleep by some 0.1 ms."""


@dataclass(frozen=True, slots=True)
class SensorWave:
    """One square wave.

    Attributes:
        period_s: Of busy and idle together.
        duty: Busy part.
        phase: Where on a grid of ``period_s`` that all waves share it begins, 0 to 1.
        num_periods: How many.
    """

    period_s: float
    duty: float
    phase: float
    num_periods: int

    @property
    def range_name(self) -> str:
        """``sensor:`` and the wave as JSON."""
        return _PREFIX + json.dumps(asdict(self), separators=(",", ":"))

    @property
    def length_s(self) -> float:
        """Of all periods."""
        return self.period_s * self.num_periods

    @property
    def is_square(self) -> bool:
        """Whether it is busy for half of each period, which is longer than a tick."""
        return self.duty == 0.5 and self.period_s > _TICK_S

    @property
    def is_sweep(self) -> bool:
        """Whether looks of a counter meet it at ever other phases."""
        return not self.is_square and not self.is_pulses

    @property
    def is_pulses(self) -> bool:
        """Whether it is a train of pulses that meet each tick at one phase."""
        return self.period_s == _TICK_S

    @classmethod
    def of_range(cls, name: str) -> SensorWave | None:
        """The wave whose `range_name` this is; None for other ranges."""
        return cls(**json.loads(name[len(_PREFIX) :])) if name.startswith(_PREFIX) else None


def sensor_loads(is_quick: bool) -> list[SensorWave]:
    """Waves of 400 and 150 ms for window and lag of power samples, sweeps for the counter's, and pulses of a tick's
    length at several phases.

    The phases come in scrambled order, so that a drift is no trend over the phase. 20 s if quick, 40 s if not.
    """
    squares = [(0.4, 9), (0.15, 24)] if is_quick else [(0.4, 15), (0.15, 40)]
    num_pulses = 14 if is_quick else 20
    num_phases = _NUM_PHASES[is_quick]
    waves = [SensorWave(period_s, 0.5, 0.0, count) for period_s, count in squares]
    steps = [(3 * number) % num_phases for number in range(num_phases)]
    num_sweeps = 1 if is_quick else 2
    waves += [SensorWave(period_s, 0.5, 0.0, num_sweeps * count) for period_s, count in _SWEEPS]
    return waves + [SensorWave(_TICK_S, _PULSE_DUTY, step / num_phases, num_pulses) for step in steps]


def run_sensor_loads(
    session: Session,
    ordinal: int,
    waves: Sequence[SensorWave],
    stop: Event,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Run waves of multiply-adds, which stay below every power limit, inside a session that collects.

    Args:
        session: Gets a range for each wave.
        ordinal: CUDA's number of the GPU.
        waves: What to run.
        stop: Ends the run after the current wave.
        progress: Called with waves done and their number.
    """
    load = _BusyLoad(ordinal)
    for done, wave in enumerate(waves):
        progress(done, len(waves))
        if stop.is_set():
            return
        with session.range(wave.range_name):
            load.run(wave)
    progress(len(waves), len(waves))


class _BusyLoad:
    """Keeps a GPU busy for a wanted time."""

    def __init__(self, ordinal: int) -> None:
        import torch

        from qmeter_native.calibration.microbenchmark import CudaKernels

        self._torch: Any = torch
        self._ordinal = ordinal
        self._kernels = CudaKernels(ordinal)
        self._round_s = self._seconds(_TUNING_ROUNDS) / _TUNING_ROUNDS

    def _seconds(self, num_rounds: int) -> float:
        """How long a launch takes once the clock is up."""
        begin, end = (self._torch.cuda.Event(enable_timing=True) for _ in range(2))
        with self._torch.cuda.device(self._ordinal):
            for _ in range(50):
                self._kernels.fma(num_rounds)
            begin.record()
            for _ in range(10):
                self._kernels.fma(num_rounds)
            end.record()
            end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3 / 10

    def run(self, wave: SensorWave) -> None:
        busy_s = wave.duty * wave.period_s
        num_chunks = max(1, math.ceil(busy_s / _CHUNK_S))
        num_rounds = max(1, round(busy_s / num_chunks / self._round_s))
        now_s = time.monotonic()
        first_s = (math.floor(now_s / wave.period_s) + 1 + wave.phase) * wave.period_s
        for period in range(wave.num_periods):
            _wait_until(first_s + period * wave.period_s)
            for _ in range(num_chunks):
                self._kernels.fma(num_rounds)
        self._torch.cuda.synchronize(self._ordinal)
        _wait_until(first_s + wave.length_s)


def _wait_until(deadline_s: float) -> None:
    remaining_s = deadline_s - time.monotonic()
    if remaining_s > _SPIN_S:
        time.sleep(remaining_s - _SPIN_S)
    while time.monotonic() < deadline_s:
        pass
