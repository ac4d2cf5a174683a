"""Measures every quantization method on `builtin:stdlib-lm`: quality, size, seconds.

    python tools/bench_methods.py --out docs/results/methods-quality.json

Needs torch and transformers. Methods whose algorithm reads calibration text are measured from checkpoints in a folder,
each named as its method; without one they are rounded to nearest, and their rows say so:

    qmeter-native quantize --model builtin:stdlib-lm --quantization gptq -o .bench/methods/gptq
    python tools/bench_methods.py --checkpoints .bench/methods

Ends with a message if a method could not be measured. Beside the result goes a picture.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from threading import Event
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from qmeter_native.engines.model_source import BUILTIN_MODEL  # noqa: E402
from qmeter_native.model.estimate import Estimate  # noqa: E402
from qmeter_native.model.trial import Trial  # noqa: E402
from qmeter_native.quality.corpus import DEFAULT_BYTES  # noqa: E402
from qmeter_native.quality.plan import QualityPlan, all_methods  # noqa: E402
from qmeter_native.quality.run import QualityRun  # noqa: E402
from qmeter_native.quality.trial_file import save_trials  # noqa: E402
from qmeter_native.quantization.methods import method_names  # noqa: E402
from qmeter_native.reporters.quality_picture import quality_picture  # noqa: E402
from tools.results import Metric, cpu_name, write_result  # noqa: E402

NOTES = (
    "bits_per_byte_change is less the baseline's, paired: 95 % of a bootstrap over modules.",
    "kl_nats_per_token is of the baseline's predictions from the method's.",
    "parse_share is of programs that the model wrote and Python can parse, with Wilson's interval.",
    "how: torch reference: rounded as the method rounds, multiplied in float32 on a CPU.",
    "algorithm: what chose the codes; of a checkpoint, as `qmeter-native quantize --sequences 32` wrote it.",
    "seconds: of a method: quantizing, scoring, writing programs, on a machine that had other work too; "
    "total_cpu_seconds over the number of cores is what a quiet machine would take at least.",
)
FIGURES = (
    "bits_per_byte",
    "bits_per_byte_change",
    "perplexity",
    "kl_nats_per_token",
    "top1_agreement",
    "parse_share",
    "parse_share_change",
)


def measure(plan: QualityPlan, partial: Path | None) -> list[Trial]:
    """All trials, each printed and kept in ``partial`` when it is there."""
    trials: list[Trial] = []
    for trial in QualityRun(plan, lambda what, done, total: None, Event()).trials():
        trials.append(trial)
        figures = trial.quality
        print(trial.method, figures.bits_per_byte_change.value, figures.kl_nats_per_token.value, flush=True)
        if partial is not None:
            save_trials(trials, partial)
    return trials


def row(trial: Trial) -> dict[str, Any]:
    """A method as a row of the result file."""
    figures: dict[str, Any] = {}
    for name in FIGURES:
        figures |= fields_of(name, getattr(trial.quality, name))
    provenance = trial.provenance
    return {
        "method": trial.method,
        "scheme": trial.scheme,
        "algorithm": provenance.algorithm,
        "how": provenance.how,
        "weight_bytes": trial.size.weight_bytes.value,
        "bits_per_weight": trial.size.bits_per_weight.value,
        **figures,
        "seconds": provenance.seconds,
    }


def fields_of(name: str, estimate: Estimate) -> dict[str, float | str | None]:
    """A figure with its ends, or its reason."""
    if estimate.value is None:
        return {name: None, f"{name}_reason": estimate.reason}
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def metrics_of(trials: list[Trial], seconds: float, cpu_seconds: float) -> dict[str, Metric]:
    """What the rows come to."""
    baseline, *methods = trials
    measured = [trial for trial in methods if trial.quality.bits_per_byte.value is not None]
    figure = baseline.quality.bits_per_byte
    assert figure.value is not None
    return {
        "num_methods": Metric(len(measured), "1"),
        "baseline_bits_per_byte": Metric(figure.value, "bit/B", figure.low, figure.high),
        "scored_bytes": Metric(baseline.provenance.num_bytes or 0, "B"),
        "total_seconds": Metric(seconds, "s"),
        "total_cpu_seconds": Metric(cpu_seconds, "s"),
        "slowest_method_seconds": Metric(max(trial.provenance.seconds or 0.0 for trial in measured), "s"),
    }


def main() -> None:
    """Measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/results/methods-quality.json"))
    parser.add_argument("--bytes", type=int, default=DEFAULT_BYTES, help="of held-out text")
    parser.add_argument("--programs", type=int, default=32, help="beginnings, each completed twice")
    parser.add_argument("--trials", type=Path, help="file of trials to write as they come")
    parser.add_argument("--checkpoints", type=Path, help="folder of checkpoints, each named as its method")
    arguments = parser.parse_args()
    found = {} if arguments.checkpoints is None else {path.name: str(path) for path in arguments.checkpoints.iterdir()}
    plan = QualityPlan(
        BUILTIN_MODEL,
        tuple(name for name in all_methods() if name not in found),
        checkpoints=tuple(found[name] for name in all_methods() if name in found),
        num_bytes=arguments.bytes,
        num_programs=arguments.programs,
        skips_failures=True,
        command=f"python tools/bench_methods.py{' --checkpoints .bench/methods' if found else ''}",
    )
    begin, cpu_begin = time.perf_counter(), time.process_time()
    trials = measure(plan, arguments.trials)
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
    write(trials, metrics_of(trials, seconds, cpu_seconds), arguments.out)
    failed = [trial.method for trial in trials if trial.quality.bits_per_byte.value is None]
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}")


def write(trials: list[Trial], metrics: dict[str, Metric], path: Path) -> None:
    """The result file, and the picture beside it."""
    text, order = trials[0].provenance.text, method_names()
    write_result(
        path,
        "methods-quality",
        metrics,
        device=cpu_name(),
        command=trials[0].provenance.command,
        packages=["torch", "transformers"],
        rows=[row(trial) for trial in sorted(trials, key=lambda trial: order.index(trial.method))],
        notes=[f"Text: {text}.", *NOTES],
    )
    title = f"{BUILTIN_MODEL} on the {text}"
    path.with_suffix(".svg").write_text(quality_picture(trials, title), encoding="utf-8")


if __name__ == "__main__":
    main()
