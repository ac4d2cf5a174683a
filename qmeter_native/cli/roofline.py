"""``qmeter-native roofline``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click

from qmeter_native.errors import BenchmarkError, QmeterError, UsageError

if TYPE_CHECKING:
    from qmeter_native.model.device_profile import DeviceProfile
    from qmeter_native.roofline.ceilings import DeviceCeilings
    from qmeter_native.roofline.roofline import Roofline

__all__ = ["roofline"]

_EPILOG: Final = """\b
Examples:
  qmeter-native roofline run.qmt
  qmeter-native roofline run.qmt --phase decode --by role
  qmeter-native roofline run.qmt --role gate_up_proj --project "H100 SXM" --project B200
  qmeter-native roofline run.qmt --profile h200.json --picture run.svg
  qmeter-native roofline kernels.json --top 40
  qmeter-native roofline run.qmt --json | jq '.points[] | [.label, .bound, .fraction.value]'
  qmeter-native roofline --gpu "NVIDIA H200"
  qmeter-native roofline --gpu all

Next: qmeter-native report run.qmt
"""
_ALL: Final = "all"


@click.command(epilog=_EPILOG)
@click.argument("source", metavar="[CAPTURE|BENCHMARK]", required=False, type=click.Path(path_type=Path))
@click.option("--gpu", metavar="NAME", help="Roofs of this GPU's datasheet; alone: print them (all = the database).")
@click.option(
    "--profile",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Roofs and costs of this device profile of `calibrate`.  [default: the capture's own, else a datasheet]",
)
@click.option(
    "--project",
    "others",
    multiple=True,
    metavar="NAME|FILE",
    help="Say what it would take on this GPU: a name, or a device profile. May be repeated.",
)
@click.option(
    "--phase", type=click.Choice(["prefill", "decode", "mixed"]), help="Kernels of steps whose requests all do this."
)
@click.option("--role", metavar="ROLE", help="Kernels at this place in the model, such as qkv_proj or attention.")
@click.option("--layer", type=click.IntRange(min=0), help="Kernels of this layer.")
@click.option(
    "--by",
    type=click.Choice(["kernel", "role"]),
    default="kernel",
    show_default=True,
    help="A point is a kernel at a place in the model, or a place with all of its kernels.",
)
@click.option("--top", type=click.IntRange(min=1), default=16, show_default=True, help="Points to print.")
@click.option("--json", "is_json", is_flag=True, help="Print everything as one JSON document (docs/roofline.md).")
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), help="Write a picture to this SVG file.")
@click.option("--width", type=click.IntRange(min=60), help="Characters a line.  [default: the terminal's]")
def roofline(
    source: Path | None,
    gpu: str | None,
    profile: Path | None,
    others: tuple[str, ...],
    phase: str | None,
    role: str | None,
    layer: int | None,
    by: Literal["kernel", "role"],
    top: int,
    is_json: bool,
    picture: Path | None,
    width: int | None,
) -> None:
    """Say how far kernels are from what their GPU allows, and what another GPU would allow.

    Of a capture (run.qmt) or a kernel benchmark (JSON): each kernel's operations and bytes, its lowest roof, the part
    of it that it reaches, what binds it. Without either, the roofs of a GPU. Needs no GPU.
    """
    from qmeter_native.devices.profile_store import load_profile

    chosen = None if profile is None else load_profile(profile)
    if source is None:
        if others or phase or role or layer is not None:
            raise UsageError("there is nothing to project or to choose from", "Name a capture or a benchmark.")
        if gpu == _ALL:
            _print_all(is_json, width)
            return
        result, following = _alone(gpu, chosen), "qmeter-native roofline run.qmt"
    elif source.suffix == ".json" and source.is_file():
        if phase or role or layer is not None or by != "kernel":
            raise UsageError(
                "a benchmark has no phases, roles and layers", "Leave out --phase, --role, --layer and --by."
            )
        result, following = _of_benchmark(source, gpu, chosen, others), "qmeter-native kernels bench --help"
    else:
        result = _of_capture(source, gpu, chosen, others, (phase, role, layer), by)
        following = f"qmeter-native report {source}"
    if picture is not None:
        _draw(result, picture)
    _print(result, top, is_json, width, following)


def _alone(gpu: str | None, profile: DeviceProfile | None) -> Roofline:
    from qmeter_native.devices.default_profile import datasheet_profile
    from qmeter_native.devices.gpu_database import find_chip
    from qmeter_native.roofline.ceilings import DeviceCeilings
    from qmeter_native.roofline.energy_floor import EnergyCosts
    from qmeter_native.roofline.roofline import device_roofline

    if profile is None and gpu is None:
        hint = "Name a capture or a kernel benchmark, or a GPU: --gpu NAME, --gpu all, --profile FILE."
        raise UsageError("there is nothing to put under a roof", hint)
    if profile is not None:
        if gpu is not None:
            raise UsageError("--gpu and --profile both say whose roofs they are", "Leave out one of them.")
        return device_roofline(DeviceCeilings.of_profile(profile), EnergyCosts(profile.power_model))
    chip = find_chip(gpu or "")
    return device_roofline(DeviceCeilings.of_chip(chip), EnergyCosts(datasheet_profile(chip, chip.product).power_model))


def _of_capture(
    source: Path,
    gpu: str | None,
    profile: DeviceProfile | None,
    others: tuple[str, ...],
    wanted: tuple[str | None, str | None, int | None],
    by: Literal["kernel", "role"],
) -> Roofline:
    from qmeter_native.capture.open import open_capture
    from qmeter_native.roofline.kernel_filter import KernelFilter
    from qmeter_native.roofline.roofline import capture_roofline
    from qmeter_native.work.role import Role

    phase, role, layer = wanted
    names = {one.name.lower(): one for one in Role}
    if role is not None and role.lower() not in names:
        raise UsageError(f"there is no role {role!r}", f"Choose of: {', '.join(names)}.")
    chosen = KernelFilter(phase, None if role is None else names[role.lower()], layer)
    capture = open_capture(source)
    roofs = None if gpu is None else _named(gpu)
    return capture_roofline(capture, source.name, chosen, by, profile, roofs, [_other(name) for name in others])


def _of_benchmark(source: Path, gpu: str | None, profile: DeviceProfile | None, others: tuple[str, ...]) -> Roofline:
    import json

    from qmeter_native.devices.default_profile import default_profile
    from qmeter_native.devices.profile_store import find_profile
    from qmeter_native.model.kernel_benchmark import benchmark_from_dict
    from qmeter_native.roofline.ceilings import DeviceCeilings
    from qmeter_native.roofline.energy_floor import EnergyCosts
    from qmeter_native.roofline.roofline import benchmark_roofline

    try:
        document = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{source} is no JSON document: {error}") from error
    benchmark = benchmark_from_dict(document, str(source))
    device = benchmark.device
    known = profile or find_profile(device.uuid) or default_profile(device.name, device.uuid, device.compute_capability)
    roofs = DeviceCeilings.of_profile(known) if gpu is None else _named(gpu)
    if not roofs.roofs:
        raise UsageError(f"the roofs of {device.name} are not known", "Name them: --gpu NAME or --profile FILE.")
    costs = EnergyCosts(known.power_model)
    return benchmark_roofline(benchmark, source.name, roofs, costs, [_other(name) for name in others])


def _named(gpu: str) -> DeviceCeilings:
    from qmeter_native.devices.gpu_database import find_chip
    from qmeter_native.roofline.ceilings import DeviceCeilings

    return DeviceCeilings.of_chip(find_chip(gpu))


def _other(name: str) -> DeviceCeilings:
    """A GPU to project to: a device profile's, else the database's."""
    from qmeter_native.devices.profile_store import load_profile
    from qmeter_native.roofline.ceilings import DeviceCeilings

    if name.endswith(".json"):
        return DeviceCeilings.of_profile(load_profile(name))
    return _named(name)


def _draw(result: Roofline, path: Path) -> None:
    from qmeter_native.reporters.roofline_picture import roofline_picture

    title = f"{result.name} on {result.ceilings.gpu}" if result.name else result.ceilings.gpu
    try:
        path.write_text(roofline_picture(result, title), encoding="utf-8")
    except OSError as error:
        raise QmeterError(f"{path} cannot be written: {error.strerror}", "Choose another --picture.") from error


def _print(result: Roofline, top: int, is_json: bool, width: int | None, next_command: str) -> None:
    if is_json:
        from qmeter_native.reporters.roofline_json import roofline_json

        click.echo(roofline_json(result))
        return
    from qmeter_native.reporters.console.roofline import print_roofline
    from qmeter_native.reporters.console.terminal import make_console

    print_roofline(result, make_console(sys.stdout, width), top, next_command)


def _print_all(is_json: bool, width: int | None) -> None:
    from qmeter_native.devices.gpu_database import known_chips
    from qmeter_native.reporters.console.roofline import print_ceilings_of_all
    from qmeter_native.reporters.console.terminal import make_console
    from qmeter_native.reporters.roofline_json import database_json
    from qmeter_native.roofline.ceilings import DeviceCeilings

    devices = [DeviceCeilings.of_chip(chip) for chip in known_chips()]
    if is_json:
        click.echo(database_json(devices))
    else:
        print_ceilings_of_all(devices, make_console(sys.stdout, width))
