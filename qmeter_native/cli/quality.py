"""``qmeter-native quality``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from qmeter_native.errors import QmeterError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qmeter_native.model.trial import Trial
    from qmeter_native.quality.plan import QualityPlan

__all__ = ["quality"]

_EPILOG: Final = """\b
Examples:
  qmeter-native quality --model builtin:stdlib-lm --all
  qmeter-native quality --model builtin:stdlib-lm --quantization gptq --quantization nf4 --per-layer
  qmeter-native quality --model ./llama --quantization fp8 --text held-out.txt --device cuda
  qmeter-native quality --model ./llama --quantization awq --text held-out.txt --tasks arc_easy,hellaswag
  qmeter-native quality --model ./llama --checkpoint ./llama-gptq --text held-out.txt
  qmeter-native quality --model builtin:stdlib-lm --all -o trials.json --picture quality.svg
  qmeter-native quality --show trials.json
  qmeter-native quality --show trials.json --json | jq '.trials[] | [.method, .quality.kl_nats_per_token.value]'

Next: qmeter-native trace --model builtin:stdlib-lm --quantization nf4
"""
_INTERRUPTED: Final = 130
_DEFAULT_MODEL: Final = "builtin:stdlib-lm"


@click.command(epilog=_EPILOG)
@click.option(
    "--model", default=_DEFAULT_MODEL, show_default=True, help="Local directory, hub id or builtin:stdlib-lm."
)
@click.option("--quantization", "methods", multiple=True, metavar="NAME", help="A method. May be repeated.")
@click.option("--all", "is_all", is_flag=True, help="All methods; one that does not suit the model gets a reason.")
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    metavar="FOLDER",
    help="A quantized checkpoint of the model. May be repeated.",
)
@click.option("--baseline", default="none", show_default=True, metavar="NAME", help="What methods are compared with.")
@click.option(
    "--text",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Held-out text to score, UTF-8.  [default of the built-in model: what it was not trained on]",
)
@click.option(
    "--bytes", "num_bytes", type=click.IntRange(min=1024), default=65536, show_default=True, help="Of the text."
)
@click.option(
    "--programs",
    "num_programs",
    type=click.IntRange(min=0),
    default=32,
    show_default=True,
    help="Beginnings of programs that the built-in model completes, each twice.",
)
@click.option("--per-layer", "has_layers", is_flag=True, help="Say which layers hurt.")
@click.option("--tasks", help="Of the evaluation harness (lm-eval), with commas.")
@click.option("--device", default="auto", show_default=True, help="Where to compute: auto, cpu, cuda:N.")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="Of what is not quantized; auto is float32 on a CPU.",
)
@click.option("--seed", default=0, show_default=True, help="Of intervals and drawn programs.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Trials to write, as JSON.")
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), help="Write a picture to this SVG file.")
@click.option("--show", type=click.Path(path_type=Path, dir_okay=False), help="Show trials instead of measuring.")
@click.option("--json", "is_json", is_flag=True, help="Print the trials as one JSON document (docs/quality.md).")
@click.option("--width", type=click.IntRange(min=60), help="Characters a line.  [default: the terminal's]")
def quality(
    model: str,
    methods: tuple[str, ...],
    is_all: bool,
    checkpoints: tuple[str, ...],
    baseline: str,
    text: Path | None,
    num_bytes: int,
    num_programs: int,
    has_layers: bool,
    tasks: str | None,
    device: str,
    dtype: str,
    seed: int,
    output: Path | None,
    picture: Path | None,
    show: Path | None,
    is_json: bool,
    width: int | None,
) -> None:
    """Say how much worse a model becomes by quantization.

    On text that the model was not trained on: bits per byte with the change against the baseline, how far predictions
    move (KL divergence, top-1 agreement), and whether programs that the built-in model writes still are Python. Ctrl-C
    ends it and keeps the methods that are done.
    """
    from qmeter_native.quality.plan import QualityPlan, all_methods

    is_interrupted = False
    if show is not None:
        from qmeter_native.quality.trial_file import load_trials

        trials: Sequence[Trial] = load_trials(show)
    else:
        if is_all and methods:
            raise UsageError("--all and --quantization both say which methods", "Leave out one of them.")
        names = all_methods(baseline) if is_all else tuple(dict.fromkeys(name for name in methods if name != baseline))
        plan = QualityPlan(
            model=model,
            methods=names,
            checkpoints=checkpoints,
            baseline=baseline,
            text=text,
            num_bytes=num_bytes,
            num_programs=num_programs,
            has_layers=has_layers,
            tasks=() if tasks is None else tuple(name.strip() for name in tasks.split(",")),
            device=device,
            dtype=dtype,
            seed=seed,
            skips_failures=is_all,
            command=shlex.join(["qmeter-native", *sys.argv[1:]]),
        )
        trials, is_interrupted = _measured(plan, output)
    if picture is not None and trials:
        _draw(trials, picture)
    if trials:
        _print(trials, is_json, width)
    sys.exit(_INTERRUPTED if is_interrupted else 0)


def _measured(plan: QualityPlan, output: Path | None) -> tuple[list[Trial], bool]:
    """Trials, each written as soon as it is there, and whether the user ended it."""
    from qmeter_native.cli.run_display import RunDisplay
    from qmeter_native.quality.run import QualityRun
    from qmeter_native.quality.trial_file import save_trials

    trials: list[Trial] = []
    with RunDisplay() as display:

        def show(what: str, done: int, total: int) -> None:
            display.show_step(what, f"{done:,} of {total:,}", done, total)

        for trial in QualityRun(plan, show, display.stop).trials():
            trials.append(trial)
            if output is not None:
                save_trials(trials, output)
        is_interrupted = display.is_interrupted
    if output is not None and trials:
        click.echo(f"trials written to {output}", err=True)
    return trials, is_interrupted


def _draw(trials: Sequence[Trial], path: Path) -> None:
    from qmeter_native.reporters.quality_picture import quality_picture

    first = trials[0]
    try:
        path.write_text(quality_picture(trials, f"{first.model}: {first.provenance.text}"), encoding="utf-8")
    except OSError as error:
        raise QmeterError(f"{path} cannot be written: {error.strerror}", "Choose another --picture.") from error
    click.echo(f"picture written to {path}", err=True)


def _print(trials: Sequence[Trial], is_json: bool, width: int | None) -> None:
    if is_json:
        import json

        from qmeter_native.model.trial import trials_to_dict

        click.echo(json.dumps(trials_to_dict(trials), indent=1, ensure_ascii=False))
        return
    from qmeter_native.quantization.methods import method_names
    from qmeter_native.reporters.console.quality import print_quality
    from qmeter_native.reporters.console.terminal import make_console

    last = trials[-1]
    method = f" --quantization {last.method}" if last.method in method_names() and last.method != "none" else ""
    following = f"qmeter-native trace --model {shlex.quote(last.model)}{method}"
    print_quality(trials, make_console(sys.stdout, width), following)
