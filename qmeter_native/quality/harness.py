"""Tasks of EleutherAI's evaluation harness (``lm_eval``), on a model that is loaded already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from qmeter_native.engines.model_source import ModelSource
from qmeter_native.errors import EngineError, MissingExtraError, UsageError
from qmeter_native.model.estimate import Estimate
from qmeter_native.quality.statistics import Z95

__all__ = ["check_tasks", "task_scores"]

_METHOD: Final = "measured: lm-eval"
_BATCH: Final = 8


def check_tasks(tasks: Sequence[str], source: ModelSource) -> None:
    """Refuse what the harness cannot do, before anything is loaded.

    Raises:
        MissingExtraError: It is not installed.
        UsageError: It has no task of such a name.
        EngineError: The model has no tokenizer.
    """
    _tokenizer(source)
    manager = _harness().tasks.TaskManager()
    unknown = [task for task in tasks if task not in manager.all_tasks]
    if unknown:
        raise UsageError(f"the evaluation harness has no task {', '.join(unknown)}", "`lm-eval ls tasks` lists them.")


def task_scores(model: Any, source: ModelSource, tasks: Sequence[str]) -> dict[str, Estimate]:
    """Scores by ``task/metric``, with 95 % intervals of the harness's own standard errors.

    Args:
        model: transformers' model, quantized or not.
        source: Whose tokenizer is taken.
        tasks: Names of the harness.

    Raises:
        MissingExtraError: The harness is not installed.
        EngineError: The model has no tokenizer, or a task's data are not here and cannot be downloaded.
    """
    harness = _harness()
    tokenizer = _tokenizer(source)
    wrapped = harness.models.huggingface.HFLM(pretrained=model, tokenizer=tokenizer, batch_size=_BATCH)
    try:
        found = harness.evaluator.simple_evaluate(model=wrapped, tasks=list(tasks))
    except (OSError, ValueError, RuntimeError) as error:  # datasets raises many types, all of them of one of these
        raise EngineError(
            f"the data of {', '.join(tasks)} are not here, or the harness failed on them: {error}",
            "Download them where there is a network (`lm-eval run --tasks …`), and bring the cache of `datasets`.",
        ) from error
    return {
        f"{task}/{name.partition(',')[0]}": _estimate(value, scores.get(name.replace(",", "_stderr,", 1)))
        for task, scores in found["results"].items()
        for name, value in scores.items()
        if isinstance(value, float) and "_stderr," not in name
    }


def _estimate(value: float, error: Any) -> Estimate:
    if not isinstance(error, float):
        return Estimate(value, method=_METHOD)
    return Estimate(value, value - Z95 * error, value + Z95 * error, method=_METHOD)


def _harness() -> Any:
    try:
        import lm_eval
        import lm_eval.evaluator
        import lm_eval.models.huggingface
        import lm_eval.tasks
    except ImportError as error:
        raise MissingExtraError(f"--tasks needs {error.name}", "pip install 'qmeter-native[quality]'") from error
    return lm_eval


def _tokenizer(source: ModelSource) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source.location)
    except Exception as error:  # transformers raises many types
        hint = "Take a model of text for --tasks; the built-in one reads bytes of Python."
        raise EngineError(f"{source.name} has no tokenizer that the evaluation harness can use", hint) from error
