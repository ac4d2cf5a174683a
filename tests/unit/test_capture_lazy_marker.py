"""Step markers that are loaded late, and what becomes of one that cannot be."""

from __future__ import annotations

from types import SimpleNamespace

from qmeter_native.capture.lazy_marker import LazyMarker


class Refusal(Exception):  # noqa: N818
    """As the extension's."""


class Driver:
    """Stands in for the extension: markers that are launched, until one is refused."""

    NativeFault = Refusal

    def __init__(self, refused_sequence: int | None = None) -> None:
        self.num_loaded = 0
        self.launched: list[tuple[int, int]] = []
        self._refused_sequence = refused_sequence

    def StepMarker(self) -> SimpleNamespace:
        self.num_loaded += 1
        return SimpleNamespace(launch=self._launch)

    def _launch(self, stream: int, sequence: int) -> None:
        if sequence == self._refused_sequence:
            raise Refusal("cuLaunchKernel failed", "invalid")
        self.launched.append((stream, sequence))


def test_a_marker_is_loaded_once_when_the_first_is_launched() -> None:
    driver = Driver()
    marker = LazyMarker(driver)
    assert driver.num_loaded == 0
    marker(7, 0)
    marker(7, 1)
    assert (driver.num_loaded, driver.launched, marker.failure) == (1, [(7, 0), (7, 1)], None)


def test_a_refused_marker_ends_marking_and_not_the_engine() -> None:
    driver = Driver(refused_sequence=1)
    marker = LazyMarker(driver)
    for sequence in range(4):
        marker(7, sequence)
    assert driver.launched == [(7, 0)]
    assert marker.failure == "cuLaunchKernel failed"
