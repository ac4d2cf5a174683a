"""Checkpoints of model shapes, written once and kept: ``shape:llama-3.1-8b`` becomes a folder that engines load."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from qmeter_native.engines.model_source import resolve_model
from qmeter_native.errors import UsageError
from qmeter_native.quantization.checkpoint_documents import WEIGHTS_FILE
from qmeter_native.quantization.checkpoint_process import write_in_a_process
from qmeter_native.quantization.checkpoint_writer import write_checkpoint
from qmeter_native.quantization.method import UNQUANTIZED
from qmeter_native.quantization.methods import method_named

__all__ = ["cache_folder", "shape_checkpoint"]

_DTYPES = {"auto": "bfloat16", "bfloat16": "bfloat16", "float16": "float16"}


def cache_folder() -> Path:
    """``$QMETER_CACHE``, else ``$XDG_CACHE_HOME/qmeter-native``, else ``~/.cache/qmeter-native``."""
    named = os.environ.get("QMETER_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qmeter-native"


def shape_checkpoint(
    model: str,
    quantization: str = "none",
    *,
    dtype: str = "auto",
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """The folder of a checkpoint of ``model``, a ``shape:NAME``; written if it is not there yet.

    Args:
        model: ``shape:NAME``.
        quantization: ``none``, or a name of `method_names`.
        dtype: Of what is not quantized: ``auto`` (bfloat16), ``bfloat16`` or ``float16``.
        seed: Of the weights.
        progress: Told bytes written and bytes in all, if it has to be written.

    Raises:
        ModelNotFoundError: No shape goes by that name.
        UsageError: The dtype or the quantization is unknown, or cannot hold this model.
        EngineError: There is too little space, or the model has layers that cannot be written.
    """
    import torch

    if dtype not in _DTYPES:
        raise UsageError(f"a checkpoint cannot have dtype {dtype}", f"Use one of {', '.join(_DTYPES)}.")
    number_format = _DTYPES[dtype]
    method = UNQUANTIZED if quantization == UNQUANTIZED.name else method_named(quantization)
    source = resolve_model(model)
    name = model.removeprefix("shape:").lower()
    folder = cache_folder() / "checkpoints" / f"{name}-{method.name}-{number_format}-seed{seed}"
    if not (folder / WEIGHTS_FILE).is_file():
        on_gpu = torch.cuda.is_available()
        write = write_in_a_process if on_gpu else write_checkpoint
        write(
            folder,
            source.config,
            method,
            dtype=getattr(torch, number_format),
            device="cuda" if on_gpu else "cpu",
            seed=seed,
            progress=progress,
        )
    return folder
