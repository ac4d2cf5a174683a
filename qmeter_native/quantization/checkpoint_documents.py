"""What lies beside a checkpoint's weights: ``config.json``, the tokenizer's files, and where the weights come from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import qmeter_native
from qmeter_native.versions import installed_versions

__all__ = ["WEIGHTS_FILE", "copy_companions", "read_weights_source", "versions", "write_config", "write_source"]

WEIGHTS_FILE: Final = "qmeter.json"
"""Beside ``config.json``: where the weights come from."""

_COMPANIONS: Final = (".json", ".model", ".txt", ".jinja", ".tiktoken")
_OWN: Final = ("config.json", WEIGHTS_FILE)
_PACKAGES: Final = ("torch", "transformers", "compressed-tensors", "llmcompressor")


def write_config(folder: Path, document: Mapping[str, Any], quantization: Mapping[str, Any] | None) -> None:
    """Write ``config.json``.

    Args:
        folder: Of the checkpoint.
        document: The unquantized model's.
        quantization: ``quantization_config``; None: weights are as they were.
    """
    added = {} if quantization is None else {"quantization_config": dict(quantization)}
    _write(folder / "config.json", {**document, **added})


def copy_companions(source: Path, folder: Path) -> None:
    """Copy the tokenizer, generation defaults and templates of a checkpoint."""
    for path in sorted(source.iterdir()):
        is_index = path.name.endswith(".index.json")
        if path.suffix in _COMPANIONS and path.name not in _OWN and path.is_file() and not is_index:
            shutil.copyfile(path, folder / path.name)


def write_source(folder: Path, weights_source: str, quantization: str, **fields: Any) -> None:
    """Write ``qmeter.json``.

    Args:
        folder: Of the checkpoint.
        weights_source: ``random_codes``, or ``checkpoint``: those of a model, quantized.
        quantization: The method's name.
        **fields: What else is known of how they were made.
    """
    document = {"weights_source": weights_source, "quantization": quantization, **fields}
    _write(folder / WEIGHTS_FILE, {**document, "writer": "qmeter-native", "versions": versions()})


def read_weights_source(folder: Path) -> str:
    """What a checkpoint's ``qmeter.json`` says of its weights; ``checkpoint`` where there is none."""
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        return "checkpoint"
    return str(json.loads(path.read_text(encoding="utf-8")).get("weights_source", "checkpoint"))


def versions() -> dict[str, str]:
    """Versions of what has a part in quantized weights, by package."""
    return {"qmeter-native": qmeter_native.__version__, **installed_versions(_PACKAGES)}


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
