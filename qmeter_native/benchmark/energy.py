"""Joules of a call: a paced loop of some seconds between ticks of the energy counter, above an idle loop before it."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from threading import Event, Thread
from types import TracebackType
from typing import Any, Final, Protocol

import numpy as np

from qmeter_native.benchmark.timer import Launch
from qmeter_native.calibration.load_slots import LoadSlots
from qmeter_native.model.estimate import Estimate

__all__ = ["CallEnergy", "EnergyMeter", "PacedMeter", "Tick", "TickWatcher", "call_energy", "idle_power"]

_LOOP_S: Final = 6.0
"""More than the 5 s that Yang et al. (SC'24) ask for: the first half second is not counted."""
_SETTLE_S: Final = 0.5
_REST_S: Final = 1.5
"""Without load before each loop: its later part tells the idle power at the temperature of the moment."""
_BUSY: Final = 0.5
"""Share of the loop in which the kernel runs: what alone is at an H200's 700 W cap draws about 410 W then."""
_SLOT_BUSY_S: Final = 0.01
_SLICE_S: Final = 0.05
_BLOCK_TICKS: Final = 5
_GAIN: Final = 0.05
"""Boards differ by up to 5 % (Yang et al. 2024); it cancels in ratios on one board."""
_Z: Final = 1.96
_POLL_S: Final = 0.0005
_SURE_SHARE: Final = 0.9
"""Of a tick's length, in which no new value is looked for: a call for the counter takes 2.4 ms."""

Tick = tuple[float, float]
"""When the counter changed, on ``time.monotonic``, and the joules that it then showed."""


@dataclass(frozen=True, slots=True)
class CallEnergy:
    """Joules of one call with the idle power of the time it takes, and above idle; and that idle power in watts."""

    gross_j: Estimate
    dynamic_j: Estimate
    idle_w: float | None = None


class EnergyMeter(Protocol):
    """Measures joules of a call."""

    def energy(self, launches: Sequence[Launch], call_s: float) -> CallEnergy:
        """Of a kernel on each copy of its weights, of which a call takes ``call_s`` seconds."""


def idle_power(ticks: Sequence[Tick], since_s: float) -> float | None:
    """Watts between the first and the last tick after ``since_s``; None with fewer than three."""
    inside = [tick for tick in ticks if tick[0] >= since_s]
    if len(inside) < 3:
        return None
    return (inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0])


def call_energy(
    ticks: Sequence[Tick], progress: Sequence[tuple[float, float]], idle_w: float, call_s: float
) -> CallEnergy:
    """From a loop's ticks.

    Args:
        ticks: Of the loop, its beginning left out.
        progress: Times, and calls that had been made by then.
        idle_w: Power without load.
        call_s: Time of a call, for the idle power that it stands for.

    The interval is of the mean over blocks of five ticks: the counter looks at the power a few times a tick only.
    """
    times, joules = np.array([tick[0] for tick in ticks]), np.array([tick[1] for tick in ticks])
    inside = (times >= progress[0][0]) & (times <= progress[-1][0]) if progress else np.zeros(len(ticks), bool)
    times, joules = times[inside], joules[inside]
    if len(times) < 2 * _BLOCK_TICKS + 1:
        reason = f"the energy counter changed {len(times)} times in the loop: too few"
        return CallEnergy(Estimate.missing(reason), Estimate.missing(reason), idle_w)
    calls = np.interp(times, [at for at, _ in progress], [made for _, made in progress])
    num_calls, length_s = calls[-1] - calls[0], times[-1] - times[0]
    dynamic_j = float((joules[-1] - joules[0] - idle_w * length_s) / num_calls)
    cuts = np.arange(0, len(times), _BLOCK_TICKS)
    blocks = (np.diff(joules[cuts]) - idle_w * np.diff(times[cuts])) / np.diff(calls[cuts])
    half = _Z * float(blocks.std(ddof=1)) / math.sqrt(len(blocks))
    gross_j = dynamic_j + idle_w * call_s
    method = f"measured: {length_s:.1f} s paced, {num_calls:.0f} calls"
    return CallEnergy(
        Estimate(gross_j, gross_j - half, gross_j + half, method, systematic=_GAIN),
        Estimate(dynamic_j, dynamic_j - half, dynamic_j + half, method, systematic=_GAIN),
        idle_w,
    )


class TickWatcher:
    """Notes when a counter of millijoules changes, in a thread of its own while it is open.

    Args:
        read_mj: Reads the counter.
    """

    def __init__(self, read_mj: Callable[[], int]) -> None:
        self.ticks: list[Tick] = []
        self._read_mj = read_mj
        self._stop = Event()
        self._thread = Thread(target=self._watch, name="energy ticks", daemon=True)

    def __enter__(self) -> TickWatcher:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        last_mj, last_s = self._read_mj(), time.monotonic()
        while not self._stop.wait(_POLL_S):
            before_s = time.monotonic()
            now_mj = self._read_mj()
            if now_mj == last_mj:
                last_s = before_s
                continue
            self.ticks.append(((last_s + time.monotonic()) / 2, now_mj / 1e3))
            last_mj = now_mj
            self._stop.wait(self._sure_s())
            last_s = time.monotonic()

    def _sure_s(self) -> float:
        """How long no tick is to be expected."""
        lengths = [later[0] - earlier[0] for earlier, later in zip(self.ticks, self.ticks[1:], strict=False)]
        return _SURE_SHARE * min(lengths) if lengths else 0.0


class PacedMeter:
    """An `EnergyMeter` of one GPU by its energy counter.

    Args:
        ordinal: CUDA's number of the GPU.
        read_mj: Reads its energy counter in millijoules.
        seed: Of the pauses, which are never in step with the counter's looks.
    """

    def __init__(self, ordinal: int, read_mj: Callable[[], int], seed: int) -> None:
        self._ordinal = ordinal
        self._read_mj = read_mj
        self._seed = seed
        self._idle_w: list[float] = []

    @property
    def idle_w(self) -> Estimate:
        """Median of the idle powers that were seen between loops."""
        if not self._idle_w:
            return Estimate.missing("energy was not asked for")
        low, high = min(self._idle_w), max(self._idle_w)
        return Estimate(statistics.median(self._idle_w), low, high, "measured: between lowest and highest")

    def energy(self, launches: Sequence[Launch], call_s: float) -> CallEnergy:
        """See `EnergyMeter`."""
        import torch

        with torch.cuda.device(self._ordinal):
            slots, calls_a_slot = self._slots(launches, call_s)
            with TickWatcher(self._read_mj) as watcher:
                torch.cuda.synchronize()
                rested_s = time.monotonic() + _REST_S / 2
                time.sleep(_REST_S)
                idle_w = idle_power(watcher.ticks, rested_s)
                slots.run(_SETTLE_S)
                progress = [(time.monotonic(), 0.0)]
                while progress[-1][0] - progress[0][0] < _LOOP_S - _SETTLE_S:
                    slots.run(_SLICE_S)
                    progress.append((time.monotonic(), float(slots.num_replays * calls_a_slot)))
                torch.cuda.synchronize()
        if idle_w is None:
            reason = "the energy counter does not tick: no idle power"
            return CallEnergy(Estimate.missing(reason), Estimate.missing(reason))
        self._idle_w.append(idle_w)
        return call_energy(watcher.ticks, progress[1:], idle_w, call_s)

    def _slots(self, launches: Sequence[Launch], call_s: float) -> tuple[Any, int]:
        """A slot of calls on the copies in turn, with pauses as long as the calls."""
        turn = cycle(launches)
        count = max(1, round(_SLOT_BUSY_S / call_s))
        slot_s = count * call_s / _BUSY
        return LoadSlots({"call": lambda: next(turn)()}, {"call": count}, slot_s, self._seed), count
