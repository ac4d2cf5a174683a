"""Where device profiles are kept: one file for each GPU, named after its UUID."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Final

from qmeter_native.devices.profile_json import profile_from_dict, profile_to_dict
from qmeter_native.errors import ProfileError
from qmeter_native.model.device_profile import DeviceProfile

__all__ = ["check_writable", "find_profile", "load_profile", "profile_folder", "profile_path", "save_profile"]

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")


def profile_folder() -> Path:
    """``$QMETER_PROFILES``, else ``qmeter-native/profiles`` in the user's configuration (``$XDG_CONFIG_HOME``)."""
    if chosen := os.environ.get("QMETER_PROFILES"):
        return Path(chosen)
    config = os.environ.get("XDG_CONFIG_HOME")
    return (Path(config) if config else Path.home() / ".config") / "qmeter-native" / "profiles"


def profile_path(uuid: str, folder: Path | None = None) -> Path:
    """File of the GPU with that UUID in ``folder``, by default `profile_folder`."""
    return (folder or profile_folder()) / f"{_UNSAFE.sub('_', uuid)}.json"


def find_profile(uuid: str, folder: Path | None = None) -> DeviceProfile | None:
    """The profile of the GPU with that UUID, None if it was never calibrated.

    Raises:
        ProfileError: There is a file, but it cannot be read.
    """
    path = profile_path(uuid, folder)
    return load_profile(path) if uuid and path.exists() else None


def load_profile(path: str | Path) -> DeviceProfile:
    """The profile in a file.

    Raises:
        ProfileError: There is none, or it is foreign, damaged or too new.
    """
    path = Path(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ProfileError(f"there is no device profile at {path}", "`qmeter-native calibrate` makes one.") from error
    except OSError as error:
        raise ProfileError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ProfileError(f"{path} is no JSON: {error}", "Run `qmeter-native calibrate` again.") from error
    return profile_from_dict(document, str(path))


def check_writable(path: str | Path) -> None:
    """Make the folder of a profile that is to come, and see that files can be made in it.

    Raises:
        ProfileError: They cannot, or the path is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise ProfileError(f"{path} cannot be written: it is a folder", "Choose another --output.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ProfileError(f"{path} cannot be written: {error.strerror}", "Choose another --output.") from error


def save_profile(profile: DeviceProfile, path: str | Path) -> None:
    """Write a profile; whoever reads at the same time sees the old file or the new one.

    Raises:
        ProfileError: The file cannot be written.
    """
    path = Path(path)
    text = json.dumps(profile_to_dict(profile), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=path.name, delete=False
        ) as file:
            file.write(text)
        Path(file.name).chmod(0o644)
        Path(file.name).replace(path)
    except OSError as error:
        raise ProfileError(f"{path} cannot be written: {error.strerror}", "Choose another --output.") from error
