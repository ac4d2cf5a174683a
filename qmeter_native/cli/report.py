"""``qmeter-native report``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final, Literal

import click

from qmeter_native.errors import CheckFailedError, QmeterError
from qmeter_native.model.static_policy import StaticPolicy

__all__ = ["report"]

_EPILOG: Final = """\b
Examples:
  qmeter-native report run.qmt
  qmeter-native report run.qmt --sort energy --top 30
  qmeter-native report run.qmt --request cmpl-1a2b
  qmeter-native report run.qmt --static-policy by-time
  qmeter-native report run.qmt --json > run.json
  qmeter-native report run.qmt --check --json | jq .balance

Next: qmeter-native export run.qmt --to perfetto
"""


@click.command(epilog=_EPILOG)
@click.argument("capture", type=click.Path(path_type=Path))
@click.option("--sort", type=click.Choice(["time", "energy"]), help="Show this ranking of kernels only.")
@click.option("--top", type=click.IntRange(min=1), default=12, show_default=True, help="Kernels a ranking.")
@click.option("--requests", type=click.IntRange(min=0), default=5, show_default=True, help="Slowest requests to show.")
@click.option("--request", "wanted", metavar="ID", help="Explain this request: its name, number or engine's id.")
@click.option("--json", "is_json", is_flag=True, help="Print everything as one JSON document (docs/report-json.md).")
@click.option(
    "--static-policy",
    type=click.Choice([policy.value for policy in StaticPolicy]),
    default=StaticPolicy.SEPARATE.value,
    show_default=True,
    help="Who gets the idle and active power of busy time: nobody, or kernels by time or by their dynamic joules.",
)
@click.option(
    "--profile",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Device profile of `calibrate`.  [default: the capture's own]",
)
@click.option(
    "--tdp",
    type=click.FloatRange(min=0, min_open=True),
    metavar="WATTS",
    help="Power to assume where none was measured.",
)
@click.option("--check", is_flag=True, help="Exit with 3 if a balance does not close.")
@click.option("--width", type=click.IntRange(min=60), help="Characters a line.  [default: the terminal's]")
def report(
    capture: Path,
    sort: Literal["time", "energy"] | None,
    top: int,
    requests: int,
    wanted: str | None,
    is_json: bool,
    static_policy: str,
    profile: Path | None,
    tdp: float | None,
    check: bool,
    width: int | None,
) -> None:
    """Say where the time and the joules of CAPTURE went.

    First the balances (time, energy, requests), which must close; then totals, kernels by time and by energy,
    phases, requests, where the median and the slowest ones' time went, and what limits the figures. Needs no GPU.
    """
    from qmeter_native.attribution.profiles import profiles_for
    from qmeter_native.attribution.report import attribute
    from qmeter_native.attribution.request_names import find_request
    from qmeter_native.capture.open import open_capture
    from qmeter_native.cli.report_output import write_report
    from qmeter_native.devices.profile_store import load_profile
    from qmeter_native.reporters.report_options import ReportOptions

    recorded = open_capture(capture)
    asked = [] if wanted is None else [find_request(recorded.requests, wanted)]
    profiles = {} if profile is None else profiles_for(recorded.manifest, load_profile(profile))
    result = attribute(recorded, capture.name, asked, profiles, StaticPolicy(static_policy), tdp)
    if asked and not result.explanations:
        told = (row.elapsed_reason for row in result.requests if row.request == asked[0])
        reason = next(told, "it had no part in the measured window")
        raise QmeterError(f"request {wanted} cannot be explained: {reason}", "See `report --requests`.")
    write_report(
        result,
        is_json=is_json,
        next_command=f"qmeter-native export {capture} --to perfetto",
        options=ReportOptions(sort, top, requests),
        width=width,
    )
    if check and (failures := result.balance.failures()):
        sys.stdout.flush()
        raise CheckFailedError(
            f"{capture}: {len(failures)} balances do not close\n" + "\n".join(f"  {failure}" for failure in failures),
            "This is a defect of qmeter-native or of the capture; please report it.",
        )
