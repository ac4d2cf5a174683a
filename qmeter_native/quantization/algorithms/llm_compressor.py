"""GPTQ, AWQ and SmoothQuant through llm-compressor, which watches a model read the calibration text.

It works on float32 weights on a CPU (16 bits are slow there) and writes compressed-tensors. That is converted to the
method's own layout through the codes, which stay as they are; scales are rounded to the type that the layout stores.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from qmeter_native.errors import EngineError, MissingExtraError, UsageError
from qmeter_native.quantization.algorithms.activation_order import input_orders, reorder_inputs
from qmeter_native.quantization.algorithms.algorithm import QuantizationJob
from qmeter_native.quantization.algorithms.compressed_output import rewrite
from qmeter_native.quantization.calibration_text import tokenizer_of

__all__ = ["LlmCompressor"]

_BATCH: Final = 4
_SMOOTHING: Final = 0.8
"""How much of the outliers moves into the weights: llm-compressor's own choice for decoders."""
_PASSES: Final = 2
"""A layer reads each batch to be calibrated, and once more with its quantized weights."""


class LlmCompressor:
    """See `Algorithm`."""

    needs_calibration = True

    def check(self, job: QuantizationJob) -> None:
        """See `Algorithm`."""
        if job.calibration is None:
            raise UsageError(
                f"{job.method.name} needs a calibration text: it watches the model read",
                "Give one with --calibration, of the kind that the model will read.",
            )
        job.calibration.sequences(tokenizer_of(job.source, job.checkpoint))
        if find_spec("llmcompressor") is None:
            raise MissingExtraError(
                f"{job.method.name} needs llmcompressor, not installed here", "pip install 'qmeter-native[quantize]'"
            )

    def write(self, job: QuantizationJob, folder: Path) -> None:
        """See `Algorithm`."""
        import torch
        from transformers import AutoModelForCausalLM

        compressed = folder / "compressed"
        job.progress("loading the model", 0, 1)
        on_cpu = job.device.type == "cpu"
        model = AutoModelForCausalLM.from_pretrained(
            str(job.checkpoint), dtype=torch.float32 if on_cpu else "auto", local_files_only=True
        )
        assert job.calibration is not None
        tokenizer = tokenizer_of(job.source, job.checkpoint)
        batches = _batches(job.calibration.sequences(tokenizer))
        orders = _reordered(model, job, batches)
        with _quiet(), _unpinned(on_cpu), _watched(model, job):
            _run(model, job, tokenizer, batches, compressed)
        rewrite(job, compressed, folder, orders)


def _reordered(model: Any, job: QuantizationJob, batches: Any) -> dict[str, Any]:
    """The orders in which layers read their inputs, by name, where the method has act-order."""
    if not job.method.config.get("desc_act"):
        return {}
    job.progress("ordering inputs", 0, 1)
    orders = input_orders(model, _targets(job), batches)
    reorder_inputs(model, orders)
    return orders


def _run(model: Any, job: QuantizationJob, tokenizer: Any, batches: Any, output: Path) -> None:
    """Quantize the model and write it as compressed-tensors."""
    from llmcompressor import oneshot

    assert job.calibration is not None
    try:
        oneshot(
            model=model,
            tokenizer=tokenizer,
            dataset=batches,
            recipe=_recipe(job),
            num_calibration_samples=job.calibration.num_sequences,
            max_seq_length=job.calibration.sequence_len,
            output_dir=str(output),
        )
    except (RuntimeError, ValueError, KeyError, AttributeError, ImportError) as error:  # what the library is known for
        raise EngineError(
            f"llm-compressor could not quantize {job.source.name}: {type(error).__name__}: {error}",
            "Give another text, or a method that needs none.",
        ) from error


def _batches(sequences: list[list[int]]) -> Any:
    """A loader of token ids; all sequences are of one length, so nothing is padded."""
    import torch
    from torch.utils.data import DataLoader

    rows = [
        {"input_ids": torch.tensor(ids), "attention_mask": torch.ones(len(ids), dtype=torch.long)} for ids in sequences
    ]
    return DataLoader(rows, batch_size=_BATCH)


def _recipe(job: QuantizationJob) -> list[Any]:
    """llm-compressor's modifiers for a method."""
    from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    groups = {"group_0": _scheme(job)}
    if job.method.algorithm == "awq":
        return [AWQModifier(), QuantizationModifier(config_groups=groups)]
    order = None if job.method.config.get("desc_act") else "static"  # None: as they come, which is ordered already
    codes = GPTQModifier(config_groups=groups, actorder=order)
    if job.method.algorithm == "smoothquant":
        return [SmoothQuantModifier(smoothing_strength=_SMOOTHING), codes]
    return [codes]


def _scheme(job: QuantizationJob) -> dict[str, Any]:
    """What is quantized and how, as an entry of ``config_groups``."""
    config = job.method.config
    targets = _targets(job)
    if config["quant_method"] == "compressed-tensors":
        (group,) = config["config_groups"].values()
        return {**group, "targets": targets}
    weights = {
        "num_bits": config["bits"],
        "type": "int",
        "symmetric": config.get("sym", False),
        "strategy": "group",
        "group_size": config["group_size"],
    }
    return {"targets": targets, "weights": weights}


def _targets(job: QuantizationJob) -> list[str]:
    """Names of the layers that are quantized."""
    return [parameter.prefix for parameter in job.parameters if parameter.layer is not None]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's own progress bars, log and warnings."""
    from loguru import logger
    from tqdm import tqdm

    original: Callable[..., None] = tqdm.__init__

    def hidden(bar: Any, *arguments: Any, **options: Any) -> None:
        original(bar, *arguments, **{**options, "disable": True})

    logger.disable("compressed_tensors")
    import llmcompressor  # noqa: F401  it switches its log on when it is imported

    logger.disable("llmcompressor")
    logging.disable(logging.WARNING)
    tqdm.__init__ = hidden
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        tqdm.__init__ = original
        logging.disable(logging.NOTSET)
        logger.enable("llmcompressor")
        logger.enable("compressed_tensors")


@contextmanager
def _unpinned(on_cpu: bool) -> Iterator[None]:
    """AWQ of llm-compressor 0.14 pins memory for a GPU even where there is none, which torch refuses."""
    from llmcompressor.pipelines.cache import IntermediatesCache

    original = IntermediatesCache.pin_memory
    if on_cpu:
        IntermediatesCache.pin_memory = lambda *_: None
    try:
        yield
    finally:
        IntermediatesCache.pin_memory = original


@contextmanager
def _watched(model: Any, job: QuantizationJob) -> Iterator[None]:
    """Tells the job's progress by counting how often decoder layers read a batch."""
    assert job.calibration is not None
    layers = model.get_decoder().layers
    total, done = len(layers) * _PASSES * -(-job.calibration.num_sequences // _BATCH), 0

    def count(module: Any, arguments: Any) -> None:
        nonlocal done
        done = min(done + 1, total)
        job.progress("calibrating", done, total)

    hooks = [layer.register_forward_pre_hook(count) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
