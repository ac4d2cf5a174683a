"""What an algorithm gets and does, and which algorithm carries a method out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol

from qmeter_native.engines.model_source import ModelSource
from qmeter_native.errors import UsageError
from qmeter_native.quantization.calibration_text import CalibrationText
from qmeter_native.quantization.method import Method
from qmeter_native.quantization.model_parameters import Parameter

__all__ = ["ALGORITHMS", "Algorithm", "QuantizationJob", "algorithm_of"]


@dataclass(frozen=True, slots=True)
class QuantizationJob:
    """What is to be quantized, and how.

    Attributes:
        source: The model.
        checkpoint: The folder of its files.
        method: The row of the table.
        parameters: All of the model's, with how each is stored.
        calibration: Text to watch it read; None: there is none.
        device: ``torch.device`` to compute on.
        progress: Told what is being done, how much of it is done, and how much there is.
    """

    source: ModelSource
    checkpoint: Path
    method: Method
    parameters: Sequence[Parameter]
    calibration: CalibrationText | None
    device: Any
    progress: Callable[[str, int, int], None]


class Algorithm(Protocol):
    """A family of algorithms."""

    needs_calibration: bool

    def check(self, job: QuantizationJob) -> None:
        """Refuse what cannot be done, before long work.

        Raises:
            UsageError: The text is missing or too short.
            MissingExtraError: The library is not installed.
        """

    def write(self, job: QuantizationJob, folder: Path) -> None:
        """Write the quantized weights and ``config.json`` to a folder that is there."""


ALGORITHMS: Final = {
    "none": "data_free.DataFree",
    "rtn": "data_free.DataFree",
    "hqq": "data_free.DataFree",
    "bitsandbytes": "data_free.DataFree",
    "qoq": "qoq.Qoq",
    "gptq": "llm_compressor.LlmCompressor",
    "awq": "llm_compressor.LlmCompressor",
    "smoothquant": "llm_compressor.LlmCompressor",
}
"""A method's algorithm and the class that carries it out."""


def algorithm_of(name: str) -> Algorithm:
    """The family of an algorithm.

    Raises:
        UsageError: No algorithm goes by that name.
    """
    if name not in ALGORITHMS:
        raise UsageError(f"no algorithm is called {name!r}", f"There are {', '.join(ALGORITHMS)}.")
    module, _, cls = ALGORITHMS[name].partition(".")
    found: Algorithm = getattr(import_module(f"{__package__}.{module}"), cls)()
    return found
