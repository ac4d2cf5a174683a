"""What is known of the power of a capture's devices: what the capture carries, else what their datasheets say."""

from __future__ import annotations

from qmeter_native.devices.default_profile import default_profile
from qmeter_native.devices.profile_json import profile_from_dict
from qmeter_native.model.device_profile import DeviceProfile
from qmeter_native.model.manifest import DeviceInfo, Manifest
from qmeter_native.units import mw_to_w

__all__ = ["carried_profiles", "expected_profile"]


def carried_profiles(manifest: Manifest) -> dict[int, DeviceProfile]:
    """The profiles that tracing found and put into the manifest, by DeviceInfo.index.

    Raises:
        ProfileError: One is damaged, or of a newer qmeter-native.
    """
    return {
        int(index): profile_from_dict(document, f"the capture's profile of device {index}")
        for index, document in manifest.profiles.items()
    }


def expected_profile(device: DeviceInfo, highest_w: float | None = None) -> DeviceProfile:
    """What a datasheet lets expect; of a CPU or an unknown GPU, that power goes by time.

    Args:
        device: The device.
        highest_w: The highest mean power of any energy window, which stands for a power limit that is not known.
    """
    limit_mw = device.properties.get("power_limit_mw")
    limit_w = highest_w if limit_mw is None else mw_to_w(limit_mw)
    return default_profile(device.name, device.uuid, device.properties.get("compute_capability"), limit_w)
