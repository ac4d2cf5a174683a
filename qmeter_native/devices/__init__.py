"""GPUs: what their datasheets say, what calibration measured, and what their counters are called."""

from __future__ import annotations

from qmeter_native.devices.default_profile import datasheet_ceilings, default_profile
from qmeter_native.devices.gpu_database import TENSOR_TYPES, ChipInfo, chip_info
from qmeter_native.devices.profile_json import profile_from_dict, profile_to_dict
from qmeter_native.devices.profile_store import (
    check_writable,
    find_profile,
    load_profile,
    profile_folder,
    profile_path,
    save_profile,
)

__all__ = [
    "TENSOR_TYPES",
    "ChipInfo",
    "check_writable",
    "chip_info",
    "datasheet_ceilings",
    "default_profile",
    "find_profile",
    "load_profile",
    "profile_folder",
    "profile_from_dict",
    "profile_path",
    "profile_to_dict",
    "save_profile",
]
