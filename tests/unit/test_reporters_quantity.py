from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmeter_native.reporters.quantity import bar, count, percent, quantity, scale_of


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (5_432.1, "J", "5.432 kJ"),
        (0.0101, "s", "10.10 ms"),
        (0.99996, "s", "1.000 s"),
        (12_345.0, "s", "12,345 s"),
        (1.9e-6, "s", "1.900 µs"),
        (0.0, "J", "0 J"),
        (-3.2, "W", "-3.200 W"),
        (1.2e-13, "J", "1e-13 J"),
    ],
)
def test_a_figure_shows_four_digits_and_a_fitting_prefix(value: float, unit: str, text: str) -> None:
    assert quantity(value, unit) == text


def test_a_column_has_one_scale_and_small_figures_do_not_become_zero() -> None:
    scale = scale_of([4.5, 0.8, 0.0001, None], "s")
    assert scale.unit == "s"
    assert [scale.text(value) for value in (4.5, 0.8, 0.0001, 0.0)] == ["4.500", "0.800", "<0.001", "0.000"]


@given(st.floats(1e-9, 1e9), st.sampled_from(["s", "J", "W"]))
def test_the_written_figure_is_the_figure_to_within_rounding(value: float, unit: str) -> None:
    scale = scale_of([value], unit)
    written = float(scale.text(value).replace(",", "")) * scale.factor
    assert written == pytest.approx(value, rel=6e-4)


def test_counts_and_percentages_are_grouped_and_rounded() -> None:
    assert count(1_234_567) == "1,234,567"
    assert [count(number, "step") for number in (1, 2_000)] == ["1 step", "2,000 steps"]
    assert percent(0.1234) == "12.3"
    assert percent(0.0001) == "<0.1"


def test_a_bar_grows_with_its_fraction_and_never_hides_a_little() -> None:
    assert bar(1.0, 5) == "█████"
    assert bar(0.5, 5) == "██▌"
    assert bar(1e-9, 5) == "▏"
    assert bar(0.0, 5) == ""
