"""Measures the quality of methods on one model, a trial at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from threading import Event
from typing import Any, Final

from qmeter_native import __version__
from qmeter_native.engines.device_choice import chosen_device
from qmeter_native.engines.model_loading import load_model
from qmeter_native.engines.model_source import ModelSource, resolve_model
from qmeter_native.errors import EngineError, QmeterError, UsageError
from qmeter_native.model.estimate import Estimate
from qmeter_native.model.trial import LayerError, Provenance, Quality, Size, Trial
from qmeter_native.quality.candidate import UNQUANTIZED, Candidate, checkpoint_candidate, method_candidate
from qmeter_native.quality.corpus import file_text, held_out_files, stdlib_text
from qmeter_native.quality.figures import baseline_figures, change_of, method_figures, parse_figures, parsed_by_block
from qmeter_native.quality.plan import QualityPlan
from qmeter_native.quality.programs import beginnings_of, complete
from qmeter_native.quality.scoring import Floats, Interrupted, Progress, Reference, score, score_reference
from qmeter_native.quality.statistics import BlockBootstrap
from qmeter_native.quality.text import HeldOutText
from qmeter_native.quantization.quantize_model import linear_layers
from qmeter_native.work.scheme import read_scheme

__all__ = ["QualityRun"]

Show = Callable[[str, int, int], None]
"""Told what is done, and how much of how much."""

NUM_WORST: Final = 3
"""Layers that are also scored alone: each takes as long as a method."""

_NO_PROGRAMS: Final = "only the built-in model writes programs here"
_COUNTED: Final = "counted"


class QualityRun:
    """Constructed = checked, with its text read; the model is loaded by `trials`.

    Args:
        plan: What to measure.
        show: Progress.
        stop: Set where the user wants no more than there is.

    Raises:
        UsageError, EngineError, ModelNotFoundError, MissingExtraError: The plan cannot be carried out.
    """

    def __init__(self, plan: QualityPlan, show: Show, stop: Event) -> None:
        self._plan, self._show, self._stop = plan, show, stop
        self._device = _device(plan.device)
        self._source = resolve_model(plan.model)
        self.text = _text(plan, self._source)
        self._bits_stored = _stored_bits(self._source)
        self._baseline = method_candidate(plan.baseline, self._source)
        self._candidates = [
            *(method_candidate(name, self._source) for name in plan.methods),
            *(checkpoint_candidate(folder, self._source) for folder in plan.checkpoints),
        ]
        if plan.tasks:
            from qmeter_native.quality.harness import check_tasks

            check_tasks(plan.tasks, self._source)
        files = held_out_files() if self._source.kind == "builtin" and plan.num_programs else {}
        self._num_modules = len(files)
        self._beginnings = beginnings_of(files, plan.num_programs)
        self._bootstrap = BlockBootstrap.of(len(self.text.blocks), seed=plan.seed)

    def trials(self) -> Iterator[Trial]:
        """The baseline's trial, then the methods'; ends early where ``stop`` is set, without the trial that it was at.

        Raises:
            UsageError, EngineError: A method does not suit the model (unless the plan skips failures).
        """
        try:
            yield from self._trials()
        except Interrupted:
            return

    def _trials(self) -> Iterator[Trial]:
        begin, baseline = time.perf_counter(), self._baseline
        model, size = self._load(baseline)
        reference = score_reference(model, self.text, self._progress(baseline, "scoring"))
        figures = baseline_figures(reference.scores, self._bootstrap)
        parsed = self._parsed(model, baseline)
        yield self._trial(baseline, begin, size, self._quality(model, figures, parsed, None))
        layers = {candidate.name: self._layers(model, candidate, reference) for candidate in self._candidates}
        del model
        for candidate in self._candidates:
            try:
                yield self._measured(candidate, reference, parsed, layers[candidate.name])
            except QmeterError as error:
                if not self._plan.skips_failures:
                    raise
                yield self._failed(candidate, error)

    def _measured(
        self, candidate: Candidate, reference: Reference, parsed: Floats | None, layers: tuple[LayerError, ...]
    ) -> Trial:
        begin = time.perf_counter()
        model, size = self._load(candidate)
        scores = score(model, self.text, reference, self._progress(candidate, "scoring"))
        figures = method_figures(scores, reference.scores, self._bootstrap)
        quality = self._quality(model, figures, self._parsed(model, candidate), parsed)
        return self._trial(candidate, begin, size, replace(quality, layers=layers))

    def _failed(self, candidate: Candidate, error: QmeterError) -> Trial:
        missing = Estimate.missing(error.what)
        quality = Quality(missing, missing, missing, missing, missing, missing, missing)
        return self._trial(candidate, None, Size(missing, missing), quality)

    def _load(self, candidate: Candidate) -> tuple[Any, Size]:
        """The model as it is computed with, and what its weights take."""
        self._progress(candidate, "quantizing" if candidate.is_quantized else "loading")(0, 1)
        loaded = load_model(candidate.source, self._device, self._dtype, self._plan.seed, candidate.quantization)
        model, size = loaded.model, _size(loaded.model, loaded.quantization_config, self._bits_stored)
        if candidate.is_quantized:
            from qmeter_native.quality.rounded_model import dequantize_once

            dequantize_once(model)
        if candidate.method is not None and candidate.method.kv is not None:
            from qmeter_native.quality.rounded_cache import round_cache

            round_cache(model, candidate.method.kv)
        return model, size

    @property
    def _dtype(self) -> Any:
        import torch

        if self._plan.dtype == "auto":
            return torch.float32 if self._device.type == "cpu" else torch.bfloat16
        return getattr(torch, self._plan.dtype)

    def _parsed(self, model: Any, candidate: Candidate) -> Floats | None:
        if not self._beginnings:
            return None
        written = complete(model, self._beginnings, self._progress(candidate, "writing programs"), self._plan.seed)
        return parsed_by_block(self._beginnings, written, self._num_modules)

    def _quality(
        self, model: Any, figures: dict[str, Estimate], parsed: Floats | None, baseline: Floats | None
    ) -> Quality:
        missing = Estimate.missing(_NO_PROGRAMS)
        quality: Quality = Quality(parse_share=missing, parse_share_change=missing)
        fields: dict[str, Any] = {**figures, **({} if parsed is None else parse_figures(parsed, baseline))}
        if self._plan.tasks:
            from qmeter_native.quality.harness import task_scores

            fields["tasks"] = task_scores(model, self._source, self._plan.tasks)
        return replace(quality, **fields)

    def _layers(self, model: Any, candidate: Candidate, reference: Reference) -> tuple[LayerError, ...]:
        if not self._plan.has_layers or candidate.method is None or not candidate.method.config:
            return ()
        from qmeter_native.quality.layer_errors import layer_errors, layer_scores

        method = candidate.method
        self._progress(candidate, "layer by layer")(0, 1)
        try:
            layers = layer_errors(model, method, self.text)
        except UsageError:
            return ()  # the method does not suit the model, as it will say itself
        for place, layer in enumerate(layers[:NUM_WORST]):
            progress = self._progress(candidate, f"{layer.layer} alone")
            scores = layer_scores(model, method, layer.layer, self.text, reference, progress)
            change = change_of(scores, reference.scores, self._bootstrap)
            layers[place] = replace(layer, bits_per_byte_change=change)
        return tuple(layers)

    def _progress(self, candidate: Candidate, what: str) -> Progress:
        def progress(done: int, total: int) -> None:
            if self._stop.is_set():
                raise Interrupted
            self._show(f"{candidate.name}: {what}", done, total)

        return progress

    def _trial(self, candidate: Candidate, begin: float | None, size: Size, quality: Quality) -> Trial:
        has_kernel = self._device.type == "cuda" and candidate.algorithm != UNQUANTIZED
        how = "kernel" if has_kernel else "torch reference"
        provenance = Provenance(
            date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            command=self._plan.command,
            device=_device_name(self._device),
            how=how if candidate.is_quantized else "unquantized",
            dtype=str(self._dtype).removeprefix("torch."),
            algorithm=candidate.algorithm,
            weights_source="checkpoint",
            text=self.text.name,
            text_digest=self.text.digest,
            num_bytes=self.text.num_bytes,
            baseline=self._plan.baseline,
            software={"qmeter-native": __version__, **{name: version(name) for name in ("torch", "transformers")}},
            seconds=None if begin is None else time.perf_counter() - begin,
        )
        return Trial(self._plan.model, candidate.name, candidate.scheme, provenance, size, quality=quality)


def _device(name: str) -> Any:
    chosen = chosen_device(name)
    import torch

    if chosen != "cpu" and not torch.cuda.is_available():
        raise EngineError(f"device {chosen} was asked for, and torch sees no CUDA GPU", "Use --device cpu.")
    return torch.device(chosen)


def _text(plan: QualityPlan, source: ModelSource) -> HeldOutText:
    if plan.text is not None:
        return file_text(Path(plan.text), source, plan.num_bytes)
    if source.kind != "builtin":
        raise UsageError(
            f"{plan.model} needs a text that it was not trained on",
            "Give a file of some hundred kilobytes: --text FILE.",
        )
    return stdlib_text(plan.num_bytes)


def _stored_bits(source: ModelSource) -> int:
    """Of a weight of the checkpoint, not quantized."""
    import torch

    dtype = getattr(source.config, "dtype", None)
    return 8 * int((dtype if isinstance(dtype, torch.dtype) else torch.bfloat16).itemsize)


def _size(model: Any, config: Mapping[str, Any] | None, bits_stored: int) -> Size:
    """Quantized weights as the work model counts them; others as the checkpoint stores them, whatever computes them."""
    from qmeter_native.quantization.quant_linear import QuantLinear

    layers = [(layer.out_features, layer.in_features) for layer in model.modules() if isinstance(layer, QuantLinear)]
    num_quantized = sum(n * k for n, k in layers)
    num_plain = sum(int(layer.weight.numel()) for layer in linear_layers(model).values())
    packed_bits = 0
    if layers:
        scheme, reason = read_scheme(None, config, "float16")
        if scheme is None:
            missing = Estimate.missing(str(reason))
            return Size(missing, missing)
        packed_bits = 8 * sum(scheme.weight.num_bytes(n, k) for n, k in layers)
    weight_bytes = (packed_bits + int(model.num_parameters()) * bits_stored) / 8
    bits_per_weight = (packed_bits + num_plain * bits_stored) / (num_quantized + num_plain)
    return Size(Estimate(weight_bytes, method=_COUNTED), Estimate(bits_per_weight, method=_COUNTED))


def _device_name(device: Any) -> str:
    import platform

    import torch

    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else f"CPU, {platform.machine()}"
