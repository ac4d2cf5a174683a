"""``qmeter-native calibrate``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from qmeter_native.calibration.gpu import Gpu
    from qmeter_native.model.device_profile import DeviceProfile

__all__ = ["calibrate"]

_INTERRUPTED: Final = 130

_EPILOG: Final = """\b
Examples:
  qmeter-native calibrate
  qmeter-native calibrate --device cuda:1 --quick
  qmeter-native calibrate --output h200.json --captures h200-calibration
  qmeter-native calibrate --show h200.json

\b
Ctrl-C ends it and keeps what was measured; a second one keeps nothing.
Next: qmeter-native trace --model builtin:stdlib-lm
"""
_NEXT: Final = "qmeter-native trace --model builtin:stdlib-lm"


@click.command(epilog=_EPILOG)
@click.option("--device", default="cuda:0", show_default=True, help="The GPU, by CUDA's number.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="Profile to write.  [default: where traces look for it]"
)
@click.option("--quick", "is_quick", is_flag=True, help="Under a minute: fewer repeats and kernels, wider intervals.")
@click.option("--captures", type=click.Path(path_type=Path), help="Keep the captures it was made from in this folder.")
@click.option("--show", type=click.Path(path_type=Path), help="Print a profile that is there instead of making one.")
@click.option("--json", "is_json", is_flag=True, help="Print the profile as JSON.")
def calibrate(
    device: str, output: Path | None, is_quick: bool, captures: Path | None, show: Path | None, is_json: bool
) -> None:
    """Measure a GPU: its energy sensor, its ceilings, and what a byte and a FLOP cost.

    Writes a device profile, which traces of this GPU then use. Takes under 3 minutes, in which nothing else should run
    on the GPU; needs `pip install 'qmeter-native[engine,cuda]'`.
    """
    from qmeter_native.devices import load_profile, profile_path, save_profile

    if show is not None:
        _print(load_profile(show), is_json, None)
        return
    from qmeter_native.calibration.gpu import find_gpu

    gpu = find_gpu(device)
    profile, is_interrupted = _calibrated(gpu, is_quick, captures)
    path = output or profile_path(gpu.uuid)
    save_profile(profile, path)
    click.echo(f"profile written to {path}", err=True)
    _print(profile, is_json, _NEXT)
    sys.exit(_INTERRUPTED if is_interrupted else 0)


def _calibrated(gpu: Gpu, is_quick: bool, captures: Path | None) -> tuple[DeviceProfile, bool]:
    from qmeter_native.calibration.calibrate import CalibrationOptions
    from qmeter_native.calibration.calibrate import calibrate as measure
    from qmeter_native.cli.run_display import RunDisplay

    with RunDisplay() as display:
        profile = measure(gpu, CalibrationOptions(is_quick, captures), display.stop, display.show_step)
        return profile, display.is_interrupted


def _print(profile: DeviceProfile, is_json: bool, next_command: str | None) -> None:
    if is_json:
        from qmeter_native.devices import profile_to_dict

        click.echo(json.dumps(profile_to_dict(profile), indent=1, ensure_ascii=False))
        return
    from qmeter_native.reporters.console import make_console
    from qmeter_native.reporters.console.profile import print_profile

    print_profile(profile, make_console(sys.stdout), next_command)
