"""Plans of load windows: what runs in which order, so that windows test a power model instead of flattering it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.calibration.load_window import LoadWindow, WindowRole
from qmeter_native.errors import UsageError

__all__ = ["IDLE_SETTLE_S", "SETTLE_S", "LoadPlan", "PilotLoad", "PlanOptions", "plan_loads"]

SETTLE_S: Final = 0.4
"""A window's load runs so long before it is measured: bursts overshoot for about 0.1 s before the power cap bites."""
IDLE_SETTLE_S: Final = 1.5
"""Likewise for idle brackets: clocks fall, and the last kernels' heat shows in the sensor for about a second."""
_SLOT_S: Final = 0.02
"""Shorter than the 0.1 s over which the power cap is held, long enough for some ten launches of each kind. On average:
`LoadSlots` makes slots uneven, so that they do not keep step with a sensor."""
_MAX_DUTY: Final = 0.93
"""Most of a slot that is planned to be busy: beyond it pacing slips."""
_SOAK_SHARES: Final = (0.65, 0.85)
_CHANGED_SHARES: Final = (0.5, 0.8)
"""Like `PlanOptions.shares`, for interventions: room for three tenths more below the cap."""
_MAX_TRIES: Final = 400
_MIN_CHANGED: Final = 3
"""Fewest launches a slot of the kind that an intervention changes: three tenths of them must be a launch."""
_MIN_CHANGED_SHARE: Final = 0.15
"""Least part of the busy time that it has: a smaller change drowns in the sensor's error."""


@dataclass(frozen=True, slots=True)
class PilotLoad:
    """What a kind does alone and without a gap.

    Attributes:
        time_s: Between two launches.
        power_w: Mean power, idle power included.
    """

    time_s: float
    power_w: float


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """How many windows of what.

    Attributes:
        window_s: Length of each measured window.
        soak_s: Length of the soak.
        duties: Part of the time that kinds alone are busy; 1 is without gaps.
        num_mixtures: Below the power cap.
        num_capped: Mixtures without gaps.
        num_interventions: Of four windows each.
        num_brackets: Idle windows, spread evenly.
        shares: Least and highest power of mixtures below the cap, over that of the kind that draws most alone: 300 to
            610 W on an H200.
        seed: Of what is random: the same plan for the same pilots.
        part: (i, n): the i-th of n shards of mixtures and interventions, from 1: every n-th of each sort, so that
            shards never overlap, however many windows each has time for.
    """

    window_s: float = 5.0
    soak_s: float = 60.0
    duties: tuple[float, ...] = (1.0, 0.45)
    num_mixtures: int = 36
    num_capped: int = 12
    num_interventions: int = 12
    num_brackets: int = 4
    shares: tuple[float, float] = (0.43, 0.88)
    seed: int = 1
    part: tuple[int, int] = (1, 1)


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Windows in the order in which they run."""

    windows: tuple[LoadWindow, ...]

    @property
    def length_s(self) -> float:
        """Expected seconds, with settling."""
        idle = WindowRole.IDLE
        return sum(w.length_s + (IDLE_SETTLE_S if w.role is idle else SETTLE_S) for w in self.windows)


def plan_loads(pilots: Mapping[str, PilotLoad], idle_w: float, options: PlanOptions) -> LoadPlan:
    """Singles, mixtures and interventions in random order between idle brackets, after a soak.

    Args:
        pilots: Each kind alone.
        idle_w: Power with nothing running.
        options: How many of what.

    Raises:
        UsageError: Fewer than two kinds.
    """
    if len(pilots) < 2:
        raise UsageError("a plan of mixtures needs at least two kinds of kernels", "See why kinds were left out.")
    planner = _Planner(pilots, idle_w, options)
    index, parts = options.part
    groups = [planner.single(name, duty) for name in pilots for duty in options.duties]
    groups += [planner.mixture(number) for number in range(index - 1, options.num_mixtures, parts)]
    groups += [planner.capped(number) for number in range(index - 1, options.num_capped, parts)]
    groups += [planner.intervention(number) for number in range(index - 1, options.num_interventions, parts)]
    order = np.random.default_rng((options.seed, index)).permutation(len(groups))
    windows = _bracketed([groups[position] for position in order], planner, options)
    return LoadPlan(tuple(replace(window, number=number) for number, window in enumerate(windows)))


def _bracketed(groups: Sequence[list[LoadWindow]], planner: _Planner, options: PlanOptions) -> list[LoadWindow]:
    """The groups between idle windows, after the soak; a group is never cut."""
    idle = LoadWindow(0, WindowRole.IDLE, options.window_s)
    windows = [idle]
    if options.soak_s > 0:
        windows.append(planner.soak())
    num_breaks = max(options.num_brackets - 1, 1)
    breaks = {round(len(groups) * (number + 1) / num_breaks) for number in range(num_breaks - 1)}
    for position, group in enumerate(groups):
        if position in breaks:
            windows.append(idle)
        windows.extend(group)
    return [*windows, idle]


class _Planner:
    """Draws windows; each has a seed of its own, so that more of one sort do not change another."""

    def __init__(self, pilots: Mapping[str, PilotLoad], idle_w: float, options: PlanOptions) -> None:
        self._pilots = pilots
        self._names = list(pilots)
        self._idle_w = idle_w
        self._options = options

    def single(self, name: str, duty: float) -> list[LoadWindow]:
        pilot, options = self._pilots[name], self._options
        count = max(1, round(_SLOT_S * min(duty, 1.0) / pilot.time_s))
        slot_s = 0.0 if duty >= 1 else max(_SLOT_S, count * pilot.time_s / duty)
        group = f"single {name} {duty:g}"
        return [LoadWindow(0, WindowRole.SINGLE, options.window_s, slot_s, {name: count}, group)]

    def mixture(self, number: int) -> list[LoadWindow]:
        counts, target_w = self._paced((1, number), *self._options.shares)
        return [self._window(WindowRole.MIXTURE, counts, f"mixture {number}", target_w)]

    def capped(self, number: int) -> list[LoadWindow]:
        """Without gaps, of kinds that draw much alone."""
        random = self._random((2, number))
        hungry = sorted(self._names, key=lambda name: -self._pilots[name].power_w)
        names = self._drawn(random, hungry[: max(2, len(hungry) * 2 // 3)], 4)
        counts = self._counts(names, random.dirichlet(np.ones(len(names))), 1.0)
        return [self._window(WindowRole.MIXTURE, counts, f"capped {number}", 0.0, 0.0)]

    def soak(self) -> LoadWindow:
        counts, target_w = self._paced((4, 0), *_SOAK_SHARES)
        return replace(self._window(WindowRole.SOAK, counts, "soak", target_w), length_s=self._options.soak_s)

    def intervention(self, number: int) -> list[LoadWindow]:
        """ABBA: a mixture, and the same with three tenths more or fewer launches of one kind."""
        random = self._random((3, number))
        sign = 1 if number % 2 else -1
        for attempt in range(_MAX_TRIES):
            counts, target_w = self._paced((3, number, attempt), *_CHANGED_SHARES)
            busy_s = self._busy_s(counts)
            changeable = [
                name
                for name, count in counts.items()
                if count >= _MIN_CHANGED and count * self._pilots[name].time_s >= _MIN_CHANGED_SHARE * busy_s
            ]
            if not changeable:
                continue
            changed = changeable[int(random.integers(len(changeable)))]
            other = {**counts, changed: counts[changed] + sign * round(0.3 * counts[changed])}
            if self._busy_s(other) <= _MAX_DUTY * _SLOT_S:
                break
        sides = {
            "A": self._window(WindowRole.INTERVENTION, counts, f"intervention {number}", target_w),
            "B": self._window(WindowRole.INTERVENTION, other, f"intervention {number}", target_w),
        }
        return [replace(sides[side], side=side, changed=changed) for side in "ABBA"]

    def _paced(self, key: tuple[int, ...], low: float, high: float) -> tuple[dict[str, int], float]:
        """Counts a slot of two to five kinds that should draw a power between two, and that power.

        The two are parts of what the kind draws alone that draws most.

        Where no kinds drawn reach it, the last ones drawn, as dense as pacing allows.
        """
        random = self._random(key)
        hungriest_w = max(pilot.power_w for pilot in self._pilots.values())
        most_w = self._idle_w + _MAX_DUTY * (hungriest_w - self._idle_w)
        target_w = float(np.clip(random.uniform(low, high) * hungriest_w, self._idle_w, most_w))
        for _ in range(_MAX_TRIES):
            names = self._drawn(random, self._names, 5)
            shares = random.dirichlet(np.full(len(names), 1.5))
            powers_w = np.array([self._pilots[name].power_w for name in names])
            duty = (target_w - self._idle_w) / max(float(shares @ (powers_w - self._idle_w)), 1e-9)
            counts = self._counts(names, shares, min(duty, _MAX_DUTY))
            if duty <= _MAX_DUTY and self._busy_s(counts) <= _MAX_DUTY * _SLOT_S:
                break
        return counts, target_w

    def _drawn(self, random: np.random.Generator, names: Sequence[str], most: int) -> list[str]:
        """Two to ``most`` of ``names``."""
        chosen = random.permutation(len(names))[: random.integers(2, most + 1)]
        return [names[position] for position in chosen]

    def _counts(self, names: Sequence[str], shares: NDArray[Any], duty: float) -> dict[str, int]:
        """Launches a slot that keep the GPU busy for ``duty`` of it, divided by ``shares``; at least one of each."""
        times_s = [self._pilots[name].time_s for name in names]
        wanted = [share * duty * _SLOT_S / time_s for share, time_s in zip(shares, times_s, strict=True)]
        return {name: max(1, round(count)) for name, count in zip(names, wanted, strict=True)}

    def _busy_s(self, counts: Mapping[str, int]) -> float:
        return sum(count * self._pilots[name].time_s for name, count in counts.items())

    def _window(
        self, role: WindowRole, counts: dict[str, int], group: str, target_w: float, slot_s: float = _SLOT_S
    ) -> LoadWindow:
        return LoadWindow(0, role, self._options.window_s, slot_s, counts, group, target_w=target_w)

    def _random(self, key: tuple[int, ...]) -> np.random.Generator:
        return np.random.default_rng((self._options.seed, *key))
