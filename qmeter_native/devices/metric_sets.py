"""Which hardware metrics a chip is asked for: the names differ from chip to chip, the quantities do not.

Each set fits into one pass of PM sampling on each of its chips, which tests ask libcupti itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from qmeter_native.errors import DeviceError, UsageError
from qmeter_native.model.counter_quantity import CounterQuantity

__all__ = ["METRIC_SETS", "CounterMetric", "FactorKind", "metric_set", "sampled_chips"]

FactorKind = Literal["one", "num_sms", "quarter_sms"]
"""What makes a device sum of a value: nothing, the number of SMs that it is a mean over, or a quarter of it where it
adds up an SM's four tensor pipes."""

METRIC_SETS: Final = ("energy", "memory")
"""``energy`` for the power model, ``memory`` for DRAM traffic alone at a quarter of the decoding."""


@dataclass(frozen=True, slots=True)
class CounterMetric:
    """A metric of one chip, and the quantity it measures.

    Attributes:
        quantity: What it counts.
        metric: Its name in CUPTI, with the rollup.
        factor_kind: What its value is multiplied by.
    """

    quantity: CounterQuantity
    metric: str
    factor_kind: FactorKind

    def factor(self, num_sms: int) -> float:
        """The factor on a device with ``num_sms`` SMs."""
        return {"one": 1.0, "num_sms": float(num_sms), "quarter_sms": num_sms / _PIPES_PER_SM}[self.factor_kind]


_PIPES_PER_SM: Final = 4
_PIPE_SUM: Final = "TPC.TriageCompute.sm__pipe_tensor"
"""Begins what adds up an SM's tensor pipes: on an H200 up to 3.88 a cycle, and 1024 FLOP each of 16-bit products."""
_Q = CounterQuantity
_Names = Mapping[CounterQuantity, str]

_DRAM: Final[_Names] = {_Q.DRAM_READ_BYTES: "dram__bytes_read.sum", _Q.DRAM_WRITE_BYTES: "dram__bytes_write.sum"}
_DRAM_GB20X: Final[_Names] = {
    _Q.DRAM_READ_BYTES: "dram__bytes_op_read.sum",
    _Q.DRAM_WRITE_BYTES: "dram__bytes_op_write.sum",
}
_COMMON: Final[_Names] = {
    _Q.L2_SECTORS: "lts__t_sectors.sum",
    _Q.SM_ACTIVE_CYCLES: "sm__cycles_active.avg",
    _Q.SM_ELAPSED_CYCLES: "sm__cycles_elapsed.avg",
    _Q.SHARED_WAVEFRONTS: "l1tex__data_pipe_lsu_wavefronts.sum",
}

# Chips of compute servers have counters in the TPCs for all of it at once.
_SERVER: Final[_Names] = {
    **_COMMON,
    _Q.INSTRUCTIONS: "sm__inst_executed.sum",
    _Q.WARP_CYCLES: "sm__warps_active.avg",
    _Q.TENSOR_CYCLES: "TPC.TriageCompute.sm__pipe_tensor_cycles_active_realtime.avg",
}
_GH100: Final[_Names] = {
    **_SERVER,
    _Q.TENSOR_HMMA_CYCLES: "TPC.TriageCompute.sm__pipe_tensor_op_hmma_cycles_active_realtime.avg",
    _Q.TENSOR_IMMA_CYCLES: "TPC.TriageCompute.sm__pipe_tensor_op_imma_cycles_active_realtime.avg",
}
_GB10X: Final[_Names] = {
    **_SERVER,
    _Q.TENSOR_HMMA_CYCLES: "TPC.TriageCompute.sm__pipe_tensor_subpipe_hmma_cycles_active_realtime.avg",
    _Q.TENSOR_IMMA_CYCLES: "TPC.TriageCompute.sm__pipe_tensor_subpipe_imma_cycles_active_realtime.avg",
}

# On the others only the `_realtime` variants leave room for the tensor pipe, which is not told apart by type.
_AMPERE: Final[_Names] = {
    **_COMMON,
    _Q.INSTRUCTIONS: "sm__inst_executed_realtime.sum",
    _Q.WARP_CYCLES: "sm__warps_active_realtime.avg",
    _Q.TENSOR_CYCLES: "sm__pipe_tensor_cycles_active_realtime.avg",
}
_GB20X: Final[_Names] = {  # no room for warps
    **_COMMON,
    _Q.INSTRUCTIONS: "sm__inst_executed_realtime.sum",
    _Q.TENSOR_CYCLES: "sm__pipe_tensor_cycles_active_realtime.avg",
    _Q.TENSOR_HMMA_CYCLES: "sm__pipe_tensor_subpipe_hmma_cycles_active_realtime.avg",
    _Q.TENSOR_IMMA_CYCLES: "sm__pipe_tensor_subpipe_imma_cycles_active_realtime.avg",
}

_FAMILIES: Final[tuple[tuple[tuple[str, ...], _Names, _Names], ...]] = (
    (("GA100",), _DRAM, _AMPERE),
    (("GA102", "GA103", "GA104", "GA106", "GA107"), _DRAM, _AMPERE),
    (("AD102", "AD103", "AD104", "AD106", "AD107"), _DRAM, _AMPERE),
    (("GH100",), _DRAM, _GH100),
    (("GB100", "GB102", "GB110"), _DRAM, _GB10X),
    (("GB202", "GB203", "GB205", "GB206", "GB207"), _DRAM_GB20X, _GB20X),
)


def sampled_chips() -> tuple[str, ...]:
    """Chips that have metric sets, by CUPTI's names."""
    return tuple(chip for chips, _, _ in _FAMILIES for chip in chips)


def metric_set(chip: str, name: str = "energy") -> tuple[CounterMetric, ...]:
    """The metrics of a set, in the order of their quantities.

    Args:
        chip: CUPTI's name of a chip, such as ``GH100``.
        name: One of `METRIC_SETS`.

    Raises:
        DeviceError: There is no set for this chip.
        UsageError: There is no set of this name.
    """
    if name not in METRIC_SETS:
        raise UsageError(f"there is no metric set {name!r}", f"choose one of {', '.join(METRIC_SETS)}")
    for chips, dram, rest in _FAMILIES:
        if chip in chips:
            names = dram if name == "memory" else {**dram, **rest}
            return tuple(_counter_metric(quantity, names[quantity]) for quantity in sorted(names))
    raise DeviceError(
        f"there are no hardware counters for the chip {chip}",
        f"they are known for {', '.join(sampled_chips())}; without them energy is modelled from shapes",
    )


def _counter_metric(quantity: CounterQuantity, metric: str) -> CounterMetric:
    if metric.startswith(_PIPE_SUM):
        return CounterMetric(quantity, metric, "quarter_sms")
    return CounterMetric(quantity, metric, "num_sms" if metric.endswith(".avg") else "one")
