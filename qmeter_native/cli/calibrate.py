"""``qmeter-native calibrate``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from qmeter_native.errors import UsageError

if TYPE_CHECKING:
    from qmeter_native.calibration.gpu import Gpu
    from qmeter_native.model.device_profile import DeviceProfile

__all__ = ["calibrate"]

_INTERRUPTED: Final = 130
_REGRESSION: Final = 3

_EPILOG: Final = """\b
Examples:
  qmeter-native calibrate
  qmeter-native calibrate --device cuda:1 --quick
  qmeter-native calibrate --output h200.json --captures h200-calibration
  qmeter-native calibrate --show h200.json
  qmeter-native calibrate --verify --output truth.json
  qmeter-native calibrate --verify --part 1/2 --budget 560 --output truth-1.json
  qmeter-native calibrate --verify --rows truth-1.json --rows truth-2.json

\b
Ctrl-C ends it and keeps what was measured; a second one keeps nothing.
Next: qmeter-native trace --model builtin:stdlib-lm
"""
_NEXT: Final = "qmeter-native trace --model builtin:stdlib-lm"
_BUDGET_S: Final = 900.0
_OF_VERIFY: Final = ("budget", "part", "kinds", "rows")


@click.command(epilog=_EPILOG)
@click.option("--device", default="cuda:0", show_default=True, help="The GPU, by CUDA's number.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Profile to write.  [default: where traces look for it]  With --verify the result file.",
)
@click.option("--quick", "is_quick", is_flag=True, help="Under a minute: fewer repeats and kernels, wider intervals.")
@click.option("--captures", type=click.Path(path_type=Path), help="Keep the captures it was made from in this folder.")
@click.option("--show", type=click.Path(path_type=Path), help="Print a profile that is there instead of making one.")
@click.option("--verify", "is_verify", is_flag=True, help="Test what is claimed of joules against the energy counter.")
@click.option("--budget", type=float, help="Seconds that --verify may take.  [default: 900]")
@click.option("--part", metavar="I/N", help="The I-th of N runs that share the test of --verify.")
@click.option("--kinds", metavar="A,B,…", help="The loads that --verify runs.  [default: 14 that serving runs]")
@click.option(
    "--rows",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Put result files, or folders of --captures, of --verify together instead.",
)
@click.option("--json", "is_json", is_flag=True, help="Print the profile, or the test's figures, as JSON.")
def calibrate(
    device: str,
    output: Path | None,
    is_quick: bool,
    captures: Path | None,
    show: Path | None,
    is_verify: bool,
    is_json: bool,
    **of_verify: Any,
) -> None:
    """Measure a GPU: its energy sensor, its ceilings, and what a byte and a FLOP cost.

    Writes a device profile, which traces of this GPU then use. Takes under 3 minutes, in which nothing else should run
    on the GPU; needs `pip install 'qmeter-native[engine,cuda]'`.
    """
    _check(is_verify, is_quick, show, of_verify)
    if show is not None:
        from qmeter_native.devices import load_profile

        _print(load_profile(show), is_json, None)
    elif is_verify:
        _verify(device, output, captures, is_json, **of_verify)
    else:
        _calibrate(device, output, is_quick, captures, is_json)


def _check(is_verify: bool, is_quick: bool, show: Path | None, of_verify: dict[str, Any]) -> None:
    """Refuse options that would do nothing."""
    given = [f"--{name}" for name in _OF_VERIFY if of_verify[name] not in (None, ())]
    if given and not is_verify:
        raise UsageError(f"{given[0]} does nothing without --verify", "Add --verify, or leave it out.")
    if is_verify and (is_quick or show is not None):
        raise UsageError(
            f"{'--quick' if is_quick else '--show'} does nothing with --verify", "Leave it out; --budget says how long."
        )


def _calibrate(device: str, output: Path | None, is_quick: bool, captures: Path | None, is_json: bool) -> None:
    from qmeter_native.calibration.gpu import find_gpu
    from qmeter_native.devices import check_writable, profile_path, save_profile

    gpu = find_gpu(device)
    path = output or profile_path(gpu.uuid)
    check_writable(path)  # before three minutes of measuring, not after
    profile, is_interrupted = _measured(gpu, is_quick, captures)
    save_profile(profile, path)
    click.echo(f"profile written to {path}", err=True)
    _print(profile, is_json, _NEXT)
    sys.exit(_INTERRUPTED if is_interrupted else 0)


def _measured(gpu: Gpu, is_quick: bool, captures: Path | None) -> tuple[DeviceProfile, bool]:
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


def _verify(
    device: str,
    output: Path | None,
    captures: Path | None,
    is_json: bool,
    budget: float | None,
    part: str | None,
    kinds: str | None,
    rows: tuple[Path, ...],
) -> None:
    """Exits with 3 if a figure misses its target; counts that a short run cannot reach do not count."""
    from dataclasses import asdict

    from qmeter_native.calibration.gpu import find_gpu
    from qmeter_native.calibration.verify import KINDS, VerifyOptions, run_verify
    from qmeter_native.cli.run_display import RunDisplay

    names = KINDS if kinds is None else tuple(kinds.split(","))
    options = VerifyOptions(_BUDGET_S if budget is None else budget, _part(part), rows, output, captures, names)
    gpu = None if rows else find_gpu(device)
    with RunDisplay() as display:
        result = run_verify(gpu, options, display.stop, display.show_step)
        is_interrupted = display.is_interrupted
    if is_json:
        metrics = {name: asdict(metric) for name, metric in result.metrics.items()}
        click.echo(json.dumps({"device": result.device, "metrics": metrics, "notes": result.notes}, indent=1))
    else:
        from qmeter_native.reporters.console import make_console
        from qmeter_native.reporters.console.truth import print_truth

        print_truth(result, make_console(sys.stdout))
    missed = [one for one in result.verdicts if one.metric is not None and not one.is_met and not one.target.is_count]
    sys.exit(_INTERRUPTED if is_interrupted else _REGRESSION if missed else 0)


def _part(text: str | None) -> tuple[int, int]:
    index, _, count = (text or "1/1").partition("/")
    if not (index.isdigit() and count.isdigit()):
        raise UsageError(f"{text!r} is no part", "Give --part I/N, such as 1/3.")
    return int(index), int(count)
