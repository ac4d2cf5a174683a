"""Device profiles as JSON documents.

History of the document: 1, first version.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

import numpy as np

from qmeter_native.errors import ProfileError
from qmeter_native.model.device_profile import PROFILE_SCHEMA_VERSION, Ceiling, DeviceProfile, ModelFit, SensorModel
from qmeter_native.model.estimate import Estimate
from qmeter_native.model.power_model import EnergyMode, PowerFeature, PowerModel

__all__ = ["PROFILE_FORMAT", "profile_from_dict", "profile_to_dict"]

PROFILE_FORMAT: Final = "qmeter-native device profile"
_AGAIN: Final = "Run `qmeter-native calibrate` again, or copy the profile again from where it was made."
_SENSOR_ESTIMATES: Final = (
    "tick_s",
    "power_sample_s",
    "window_s",
    "lag_s",
    "counter_call_s",
    "phase_error",
    "counter_look_s",
    "counter_time_constant_s",
    "counter_lag_s",
    "phase_error_seen",
)
"""The last four are missing in profiles of before."""


def profile_to_dict(profile: DeviceProfile) -> dict[str, Any]:
    """Plain JSON of a profile; `profile_from_dict` reads it."""
    return {
        "format": PROFILE_FORMAT,
        "schema_version": PROFILE_SCHEMA_VERSION,
        "uuid": profile.uuid,
        "name": profile.name,
        "date": profile.date,
        "sensor": None if profile.sensor is None else asdict(profile.sensor),
        "ceilings": [asdict(ceiling) for ceiling in profile.ceilings],
        "power_model": _model_to_dict(profile.power_model),
        "fit": None if profile.fit is None else asdict(profile.fit),
        "software": profile.software,
        "notes": list(profile.notes),
    }


def profile_from_dict(document: Any, where: str = "the device profile") -> DeviceProfile:
    """The profile that a JSON document holds.

    Args:
        document: What `profile_to_dict` made, or anything else.
        where: Its file, for messages.

    Raises:
        ProfileError: It is no device profile, incomplete, or written by a newer qmeter-native.
    """
    if not isinstance(document, dict) or document.get("format") != PROFILE_FORMAT:
        raise ProfileError(f"{where} is no device profile of qmeter-native", _AGAIN)
    version = document.get("schema_version")
    if not isinstance(version, int):
        raise ProfileError(f"{where} has no schema_version", _AGAIN)
    if version > PROFILE_SCHEMA_VERSION:
        raise ProfileError(
            f"{where} has version {version}; this qmeter-native reads up to {PROFILE_SCHEMA_VERSION}",
            "Update qmeter-native, or run `qmeter-native calibrate` again.",
        )
    try:
        return _profile(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProfileError(f"{where} is damaged: {error!r}", _AGAIN) from error


def _profile(document: dict[str, Any]) -> DeviceProfile:
    sensor, fit = document["sensor"], document["fit"]
    return DeviceProfile(
        uuid=document["uuid"],
        name=document["name"],
        date=document["date"],
        sensor=None if sensor is None else _sensor(sensor),
        ceilings=tuple(
            Ceiling(**{**entry, "measured": Estimate(**entry["measured"])}) for entry in document["ceilings"]
        ),
        power_model=_model(document["power_model"]),
        fit=None if fit is None else ModelFit(**fit),
        software=dict(document["software"]),
        notes=tuple(document["notes"]),
    )


def _sensor(entry: dict[str, Any]) -> SensorModel:
    estimates: dict[str, Any] = {name: Estimate(**entry[name]) for name in _SENSOR_ESTIMATES if name in entry}
    return SensorModel(**{**entry, **estimates})


def _model_to_dict(model: PowerModel) -> dict[str, Any]:
    return {
        "features": [feature.value for feature in model.features],
        "coefficient": model.coefficient.tolist(),
        "covariance": model.covariance.tolist(),
        "reference_mhz": model.reference_mhz,
        "core_exponent": model.core_exponent,
        "active_w": model.active_w,
        "active_error_w": model.active_error_w,
        "active_exponent": model.active_exponent,
        "idle_w": model.idle_w,
        "idle_w_per_k": model.idle_w_per_k,
        "idle_temperature_c": model.idle_temperature_c,
        "discrepancy": {mode.value: error for mode, error in model.discrepancy.items()},
        "window_error": model.window_error,
        "source": model.source,
        "unseen": sorted(feature.value for feature in model.unseen),
    }


def _model(entry: dict[str, Any]) -> PowerModel:
    features = tuple(PowerFeature(name) for name in entry["features"])
    coefficient = np.array(entry["coefficient"], np.float64)
    covariance = np.array(entry["covariance"], np.float64).reshape(len(features), len(features))
    if coefficient.shape != (len(features),):
        raise ValueError(f"{len(coefficient)} coefficients of {len(features)} features")
    if not (np.isfinite(coefficient).all() and np.isfinite(covariance).all()):
        raise ValueError("coefficients that are no numbers")
    discrepancy = {EnergyMode(mode): float(error) for mode, error in entry["discrepancy"].items()}
    parsed = {
        "features": features,
        "coefficient": coefficient,
        "covariance": covariance,
        "discrepancy": discrepancy,
        "unseen": frozenset(PowerFeature(name) for name in entry.get("unseen", [])),
    }
    return PowerModel(**{**entry, **parsed})
