"""Rounds a checkpoint to a method's format without calibration data, tensor by tensor, never the whole model.

HQQ's solver and bitsandbytes' tables are in the packing of their formats; all others round to nearest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qmeter_native.errors import EngineError
from qmeter_native.quantization.algorithms.algorithm import QuantizationJob
from qmeter_native.quantization.checkpoint_documents import write_config
from qmeter_native.quantization.checkpoint_files import CheckpointFiles
from qmeter_native.quantization.model_parameters import Parameter, format_of, num_bytes
from qmeter_native.quantization.shard_writer import ShardWriter

__all__ = ["DataFree", "parameter_values", "write_parameters"]


class DataFree:
    """See `Algorithm`."""

    needs_calibration = False

    def check(self, job: QuantizationJob) -> None:
        """See `Algorithm`: nothing to refuse."""

    def write(self, job: QuantizationJob, folder: Path) -> None:
        """See `Algorithm`."""
        write_parameters(job, folder, parameter_values(job))


def parameter_values(job: QuantizationJob) -> Iterator[tuple[Parameter, Any]]:
    """All tensors of the job's checkpoint, one after the other: the model's parameters in the order of its layers, then
    what else there is.

    Raises:
        EngineError: A linear layer's weight is missing, or has another shape than the configuration says.
    """
    with CheckpointFiles(job.checkpoint) as files:
        for parameter in job.parameters:
            if parameter.name in files:
                _check_shape(files, parameter)
                yield parameter, files.read(parameter.name, job.device)
            elif parameter.layer is not None:
                raise EngineError(
                    f"{job.checkpoint}: tensor {parameter.name} is missing",
                    "config.json and weights do not belong together.",
                )
        for name in sorted(files.unread):  # tied weights that are stored all the same, buffers
            yield Parameter(name, files.shape(name), None, 0), files.read(name, job.device)


def write_parameters(job: QuantizationJob, folder: Path, values: Iterator[tuple[Parameter, Any]]) -> None:
    """Write tensors as the job's method stores them, and ``config.json``."""
    shards = ShardWriter(folder)
    total, done = num_bytes(job.parameters), 0
    for parameter, value in values:
        shards.add(parameter.stored(value))
        done += parameter.num_bytes
        job.progress("quantizing", done, total)
    shards.finish()
    layout = format_of(job.method)
    document = json.loads((job.checkpoint / "config.json").read_text(encoding="utf-8"))
    write_config(folder, document, None if layout is None else layout.stored_config)


def _check_shape(files: CheckpointFiles, parameter: Parameter) -> None:
    found = files.shape(parameter.name)
    if found != parameter.shape:
        raise EngineError(
            f"{files.file_of(parameter.name)}: {parameter.name} is {found}, and the configuration says "
            f"{parameter.shape}",
            "config.json and weights do not belong together.",
        )
