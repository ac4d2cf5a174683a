"""What is known of the power of a capture's devices: what the capture carries, else what their datasheets say."""

from __future__ import annotations

from qmeter_native.devices.default_profile import default_profile
from qmeter_native.devices.profile_json import profile_from_dict
from qmeter_native.errors import ProfileError
from qmeter_native.model.device_profile import DeviceProfile
from qmeter_native.model.manifest import DeviceInfo, Manifest
from qmeter_native.units import mw_to_w

__all__ = ["carried_profiles", "expected_profile", "profiles_for"]


def carried_profiles(manifest: Manifest) -> dict[int, DeviceProfile]:
    """The profiles that tracing found and put into the manifest, by DeviceInfo.index.

    Raises:
        ProfileError: One is damaged, or of a newer qmeter-native.
    """
    return {
        int(index): profile_from_dict(document, f"the capture's profile of device {index}")
        for index, document in manifest.profiles.items()
    }


def profiles_for(manifest: Manifest, profile: DeviceProfile) -> dict[int, DeviceProfile]:
    """The devices that a profile is of, by DeviceInfo.index: those of its UUID, else those of its name.

    Raises:
        ProfileError: It is of none.
    """
    same = [device for device in manifest.devices if profile.uuid and device.uuid == profile.uuid]
    alike = [device for device in manifest.devices if device.name == profile.name]
    if not same and not alike:
        names = ", ".join(sorted({device.name for device in manifest.devices})) or "no device"
        raise ProfileError(f"the profile is of {profile.name}, but the capture is of {names}")
    return {device.index: profile for device in same or alike}


def expected_profile(device: DeviceInfo, highest_w: float | None = None) -> DeviceProfile:
    """What a datasheet lets expect; of a CPU or an unknown GPU, that power goes by time.

    Args:
        device: The device.
        highest_w: The highest mean power of any energy window, which stands for a power limit that is not known.
    """
    limit_mw = device.properties.get("power_limit_mw")
    limit_w = highest_w if limit_mw is None else mw_to_w(limit_mw)
    return default_profile(device.name, device.uuid, device.properties.get("compute_capability"), limit_w)
