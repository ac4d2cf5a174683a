"""What is compared with the baseline: a method applied on the fly, or a checkpoint that something wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qmeter_native.engines.model_source import ModelSource, resolve_model
from qmeter_native.errors import EngineError, UsageError
from qmeter_native.quantization.checkpoint_documents import WEIGHTS_FILE
from qmeter_native.quantization.method import Method
from qmeter_native.quantization.methods import METHODS, method_named

__all__ = ["UNQUANTIZED", "Candidate", "checkpoint_candidate", "method_candidate"]

UNQUANTIZED: Final = "none"
"""As ``--quantization`` spells it, and as algorithm of a model that is not quantized."""

_ON_THE_FLY: Final = "round to nearest"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model to be.

    Attributes:
        name: Of its row.
        source: Whose weights are loaded.
        quantization: Method that is applied to them on the fly; ``none``: they are taken as they are.
        scheme: Label of its format.
        algorithm: What chose the codes; ``none``: nothing is quantized.
        method: The row of the table; None: it is in none.
    """

    name: str
    source: ModelSource
    quantization: str
    scheme: str
    algorithm: str
    method: Method | None

    @property
    def is_quantized(self) -> bool:
        """Whether anything is rounded: weights, inputs or the cache."""
        return self.method is not None or self.algorithm != UNQUANTIZED


def method_candidate(name: str, source: ModelSource) -> Candidate:
    """A method, or ``none``, on a model.

    Raises:
        UsageError: There is no such method.
    """
    if name == UNQUANTIZED:
        return Candidate(name, source, name, "W16A16", UNQUANTIZED, None)
    method = method_named(name)
    return Candidate(method.name, source, name, method.scheme, _ON_THE_FLY if method.config else UNQUANTIZED, method)


def checkpoint_candidate(folder: str, source: ModelSource) -> Candidate:
    """A quantized checkpoint of a model, whoever wrote it.

    Raises:
        UsageError: It is not quantized, has random weights, or its vocabulary is another.
        ModelNotFoundError, EngineError: It is not there or broken.
    """
    found = resolve_model(folder)
    config = getattr(found.config, "quantization_config", None)
    if found.kind == "shape" or not config:
        raise UsageError(f"{folder} is no quantized checkpoint", "`qmeter-native quantize` writes one.")
    if found.config.vocab_size != source.config.vocab_size:
        raise UsageError(
            f"{folder} has {found.config.vocab_size} tokens and {source.name} has {source.config.vocab_size}",
            "Compare a model with checkpoints of its own.",
        )
    written = _written(found)
    if written.get("weights_source", "checkpoint") != "checkpoint":
        raise UsageError(f"{folder} has random weights, which have no quality to lose", "Take a trained model.")
    method = METHODS.get(str(written.get("quantization")))
    label = str(config["quant_method"] if isinstance(config, dict) else config.quant_method)
    algorithm = str(written.get("algorithm", f"of a {label} checkpoint"))
    name = Path(folder).name if found.kind == "directory" else folder
    return Candidate(name, found, UNQUANTIZED, label if method is None else method.scheme, algorithm, method)


def _written(source: ModelSource) -> dict[str, Any]:
    """What our ``quantize`` wrote beside the weights; empty if another tool did."""
    path = Path(source.location or "") / WEIGHTS_FILE
    if source.kind != "directory" or not path.is_file():
        return {}
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EngineError(f"{path} is no JSON: {error}", "Write the checkpoint again.") from error
    return found
