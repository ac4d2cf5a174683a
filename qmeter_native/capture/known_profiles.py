"""Profiles of a run's devices, taken into its capture, so that a report on another machine has them too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from qmeter_native.errors import ProfileError
from qmeter_native.model.manifest import DeviceInfo, Validity

__all__ = ["known_profiles"]


def known_profiles(devices: Iterable[DeviceInfo]) -> tuple[dict[str, Any], list[Validity]]:
    """The profiles of devices that were calibrated on this machine.

    Returns:
        By device index as text, plain JSON; and an entry for each profile that is there but cannot be read.
    """
    from qmeter_native.devices import find_profile, profile_to_dict

    profiles, notes = {}, []
    for device in devices:
        try:
            profile = find_profile(device.uuid)
        except ProfileError as error:
            message = f"Its calibration cannot be used: {error.what}."
            notes.append(Validity("profile_unreadable", message, f"device {device.index}"))
            continue
        if profile is not None:
            profiles[str(device.index)] = profile_to_dict(profile)
    return profiles, notes
