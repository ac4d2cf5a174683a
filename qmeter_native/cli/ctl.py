"""``qmeter-native ctl``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from qmeter_native.errors import UsageError

if TYPE_CHECKING:
    from qmeter_native.capture.control_socket import TraceStatus

__all__ = ["ctl"]

_EPILOG: Final = """\b
Examples:
  qmeter-native ctl start NAME.qmt
  qmeter-native ctl start NAME.qmt --duty 0.2/2
  qmeter-native ctl stop NAME.qmt
  qmeter-native ctl status NAME.qmt --json

\b
Next: qmeter-native report NAME.qmt, when the command has ended.
"""


@click.command(epilog=_EPILOG)
@click.argument("action", type=click.Choice(["start", "stop", "status"]))
@click.argument("capture", type=click.Path(path_type=Path))
@click.option("--duty", metavar="ON/PERIOD", help="With start: trace only ON of every PERIOD seconds.")
@click.option("--json", "is_json", is_flag=True, help="Print the status as JSON.")
def ctl(action: str, capture: Path, duty: str | None, is_json: bool) -> None:
    """Switch the tracing of a launched command on and off while it runs, or say how it stands.

    CAPTURE is the folder NAME.qmt that `qmeter-native trace -- COMMAND` is writing.
    """
    from qmeter_native.capture.control_socket import ask

    if duty is not None and action != "start":
        raise UsageError(f"--duty does nothing with {action}", "Give it with start.")
    status = ask(capture, action, duty)
    click.echo(json.dumps(asdict(status), indent=2) if is_json else _sentence(status))


def _sentence(status: TraceStatus) -> str:
    tracing = {
        "running": "tracing",
        "stopped": "not tracing",
        "duty_cycled": f"tracing {(status.duty or '').replace('/', ' s of every ')} s",
    }[status.mode]
    return (
        f"{tracing}; {status.elapsed_s:.1f} s since the start; {status.num_processes} processes live, "
        f"{status.num_traced} were traced; {status.num_kernels} kernels, {status.spool_bytes / 1e6:.1f} MB written"
    )
