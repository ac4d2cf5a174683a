"""The profile of a GPU that was never calibrated: its datasheet, and coefficients that others measured elsewhere."""

from __future__ import annotations

from typing import Final

import numpy as np

from qmeter_native.devices.gpu_database import ChipInfo, chip_info
from qmeter_native.model.device_profile import Ceiling, DeviceProfile
from qmeter_native.model.estimate import Estimate
from qmeter_native.model.power_model import EnergyMode, PowerFeature, PowerModel

__all__ = ["datasheet_ceilings", "datasheet_profile", "default_profile"]

_BITS_PER_BYTE: Final = 8
_DRAM_J_PER_BIT: Final = {"HBM2": 13.11e-12, "HBM2e": 13.11e-12, "HBM3": 11.68e-12, "HBM3e": 11.68e-12}
"""Measured at LBNL (SC'25, benchmark-driven models of GPU power): HBM2 and 2e on an A100, HBM3 on a GH200."""

_GDDR_J_PER_BIT: Final = 15e-12
"""Not measured: GDDR's longer traces cost more than HBM's interposer; 15 % above HBM2."""

_L2_J_PER_BIT: Final = {"GA100": 4.71e-12, "GH100": 4.87e-12}
_FP16_J_PER_FLOP: Final = {"GA100": 0.70e-12, "GH100": 0.52e-12}
"""The same source, on random data. Other chips take the figure of their process: see `_like`."""

_OLDER_CHIPS: Final = ("GV", "TU", "GA")
_NARROW: Final = 0.5
"""FP8 and INT8 over FP16, by operation: energy of a multiply-add goes about with its operands' bits."""

_SM_SHARE: Final = 0.15
_ACTIVE_SHARE: Final = 0.05
"""Of the TDP: SMs busy with anything, and a chip awake. With the above they reach an H200's 700 W in a DRAM stream
(4.1 TB/s: 383 W DRAM, 160 W L2) and in a GEMM (650 TFLOP/s: 338 W)."""

_IDLE_SHARE: Final = {True: 0.18, False: 0.10}
"""Of the TDP, by whether the board has HBM. An H200 idles at 121 to 129 W of 700 W."""

_RELATIVE_ERROR: Final = 0.5
_TIME_SHARE: Final = 0.4
"""Of the TDP above idle: what a kernel draws of which nothing is known but its time, halfway from idle to the limit."""

_UNKNOWN_TDP_W: Final = 300.0
_UNKNOWN_MHZ: Final = 1500.0
_DISCREPANCY: Final = {EnergyMode.COUNTERS: 0.15, EnergyMode.SHAPES: 0.30, EnergyMode.TIME: 0.5}
"""Published models by counters err by 11 to 12 % on kernels of a GPU that they were fitted to."""

_CORE_EXPONENT: Final = 1.0
_ACTIVE_EXPONENT: Final = 2.0
"""V² about linear in the clock near the top of its range; active power has a factor clock besides."""

_WINDOW_ERROR: Final = 0.03
_IDLE_TEMPERATURE_C: Final = 35.0


def default_profile(
    name: str, uuid: str = "", compute_capability: str | None = None, power_limit_w: float | None = None
) -> DeviceProfile:
    """What can be said of a device without calibration. Errors of its coefficients are 50 % and more.

    Args:
        name: The vendor's name; a CPU's or an unknown GPU's gives a model that knows nothing but time.
        uuid: NVML's UUID.
        compute_capability: Such as ``9.0``; None unknown.
        power_limit_w: The board's or package's power limit, where there is no datasheet.
    """
    chip = chip_info(name, compute_capability)
    if chip is None:
        note = f"There is no datasheet of {name or 'this device'}: its kernels' power is known by their time alone."
        model = _time_model(power_limit_w or _UNKNOWN_TDP_W)
        return DeviceProfile(uuid, name, "", None, (), model, notes=(note,))
    return datasheet_profile(chip, name, uuid)


def datasheet_profile(chip: ChipInfo, name: str, uuid: str = "") -> DeviceProfile:
    """What a datasheet lets expect of a GPU of that name."""
    note = (
        "Not calibrated: coefficients are literature's for chips of this kind (A100, GH200; LBNL 2025), "
        "ceilings the datasheet's. `qmeter-native calibrate` measures this GPU."
    )
    return DeviceProfile(uuid, name, "", None, datasheet_ceilings(chip), _datasheet_model(chip), notes=(note,))


def datasheet_ceilings(chip: ChipInfo) -> tuple[Ceiling, ...]:
    """The datasheet's rates as ceilings that were not measured."""
    unmeasured = Estimate.missing("not calibrated")
    dram = [Ceiling(kind, "B/s", unmeasured, chip.dram_bytes_s) for kind in ("dram_read", "dram_write", "dram_copy")]
    rates = [
        Ceiling(kind, "OP/s" if kind.startswith("int") else "FLOP/s", unmeasured, rate)
        for kind, rate in chip.peak_flop_s.items()
    ]
    return (*dram, Ceiling("l2_read", "B/s", unmeasured, None), *rates)


def _like(chip: ChipInfo) -> str:
    """The measured chip whose process is nearest: GA100 (7 nm) for Volta to Ampere, GH100 (4 nm) for Ada and later."""
    return "GA100" if chip.chip.startswith(_OLDER_CHIPS) else "GH100"


def _datasheet_model(chip: ChipInfo) -> PowerModel:
    fp16 = _FP16_J_PER_FLOP[_like(chip)]
    joules = {
        PowerFeature.DRAM_BYTES: _BITS_PER_BYTE * _DRAM_J_PER_BIT.get(chip.memory, _GDDR_J_PER_BIT),
        PowerFeature.L2_BYTES: _BITS_PER_BYTE * _L2_J_PER_BIT[_like(chip)],
        PowerFeature.FP16_FLOP: fp16,
        PowerFeature.FP8_FLOP: fp16 * _NARROW,
        PowerFeature.INT8_OP: fp16 * _NARROW,
        PowerFeature.SM_SECONDS: _SM_SHARE * chip.tdp_w,
    }
    idle_w = _IDLE_SHARE[chip.memory.startswith("HBM")] * chip.tdp_w
    return _model(joules, _RELATIVE_ERROR, chip.boost_mhz, idle_w, _ACTIVE_SHARE * chip.tdp_w)


def _time_model(tdp_w: float) -> PowerModel:
    idle_w = _IDLE_SHARE[False] * tdp_w
    joules = {PowerFeature.SM_SECONDS: _TIME_SHARE * (tdp_w - idle_w)}
    return _model(joules, 1.0, _UNKNOWN_MHZ, idle_w, _ACTIVE_SHARE * tdp_w)


def _model(
    joules: dict[PowerFeature, float], relative_error: float, reference_mhz: float, idle_w: float, active_w: float
) -> PowerModel:
    coefficient = np.array(list(joules.values()))
    return PowerModel(
        features=tuple(joules),
        coefficient=coefficient,
        covariance=np.diag((relative_error * coefficient) ** 2),
        reference_mhz=reference_mhz,
        core_exponent=_CORE_EXPONENT,
        active_w=active_w,
        active_error_w=active_w,
        active_exponent=_ACTIVE_EXPONENT,
        idle_w=idle_w,
        idle_w_per_k=0.0,
        idle_temperature_c=_IDLE_TEMPERATURE_C,
        discrepancy=dict(_DISCREPANCY),
        window_error=_WINDOW_ERROR,
        source="datasheet",
    )
