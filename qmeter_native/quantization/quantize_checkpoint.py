"""From a model to a folder that vLLM, transformers and the embedded engine load: its quantized checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qmeter_native.engines.model_source import ModelSource, is_hub_reachable
from qmeter_native.errors import EngineError, UsageError
from qmeter_native.quantization.algorithms.algorithm import QuantizationJob, algorithm_of
from qmeter_native.quantization.calibration_text import CalibrationText, tokenizer_of
from qmeter_native.quantization.checkpoint_documents import copy_companions, read_weights_source, write_source
from qmeter_native.quantization.checkpoint_reader import quantization_of
from qmeter_native.quantization.checkpoint_writer import WEIGHTS_SOURCE, write_checkpoint
from qmeter_native.quantization.method import Method
from qmeter_native.quantization.model_parameters import model_parameters, num_bytes
from qmeter_native.quantization.unfinished_folder import unfinished_folder

__all__ = ["QuantizedCheckpoint", "quantize_checkpoint"]

_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.tiktoken"]


@dataclass(frozen=True, slots=True)
class QuantizedCheckpoint:
    """A checkpoint that was written.

    Attributes:
        folder: Where it is.
        model: What was quantized, as the user wrote it.
        quantization: The method's name.
        scheme: Its format.
        algorithm: What chose the codes; ``rtn``: rounding to nearest.
        weights_source: ``checkpoint``, or ``random_codes``: worthless for quality.
        num_layers: Linear layers that are quantized.
        num_weights: Weights in them.
        layers_num_bytes: What they take, by the method's layout.
        num_bytes: All files of weights.
        calibration: The text's name, digest and extent; None: the algorithm needs none.
    """

    folder: str
    model: str
    quantization: str
    scheme: str
    algorithm: str
    weights_source: str
    num_layers: int
    num_weights: int
    layers_num_bytes: int
    num_bytes: int
    calibration: dict[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def quantize_checkpoint(
    source: ModelSource,
    method: Method,
    folder: Path,
    calibration: CalibrationText | None = None,
    *,
    device: str = "cpu",
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> QuantizedCheckpoint:
    """Write the quantized checkpoint of a model; the folder appears whole or not at all.

    A model of which only the shape is known gets random weights, rounded to nearest whatever the method's algorithm.

    Args:
        source: The model; not quantized yet.
        method: How.
        folder: To create.
        calibration: Text for algorithms that need some.
        device: Where to compute.
        seed: Of random weights.
        progress: Told what is being done, bytes or steps done, and how many in all.

    Raises:
        UsageError: The model is quantized already, a layer does not suit the method, text is missing or too short, or
            the folder exists.
        MissingExtraError: The algorithm's library is not installed.
        EngineError: Files of the model are broken, or there is too little space.
    """
    parameters = model_parameters(source.config, method, _dtype(source.config))
    algorithm = "rtn" if source.location is None else method.algorithm
    used = calibration if algorithm_of(algorithm).needs_calibration else None
    if source.location is None:
        weights_source = _draw(source, method, folder, device, seed, progress)
    else:
        import torch

        checkpoint = _folder_of(source)
        job = QuantizationJob(source, checkpoint, method, parameters, used, torch.device(device), progress)
        weights_source = _quantize(job, algorithm, folder)
    layers = [parameter for parameter in parameters if parameter.layer is not None]
    return QuantizedCheckpoint(
        folder=str(folder),
        model=source.name,
        quantization=method.name,
        scheme=method.scheme,
        algorithm=algorithm,
        weights_source=weights_source,
        num_layers=len(layers),
        num_weights=sum(layer.shape[0] * layer.shape[1] for layer in layers),
        layers_num_bytes=num_bytes(layers),
        num_bytes=sum(path.stat().st_size for path in folder.glob("*.safetensors")),
        calibration=None if used is None else used.to_dict(),
    )


def _draw(
    source: ModelSource, method: Method, folder: Path, device: str, seed: int, progress: Callable[[str, int, int], None]
) -> str:
    """Random weights; what ``weights_source`` says of them."""

    def show(done: int, total: int) -> None:
        progress("drawing weights", done, total)

    dtype = _dtype(source.config)
    write_checkpoint(folder, source.config, method, dtype=dtype, device=device, seed=seed, progress=show)
    return WEIGHTS_SOURCE


def _quantize(job: QuantizationJob, name: str, folder: Path) -> str:
    """The weights of a checkpoint; what its ``weights_source`` says of them."""
    quantized = quantization_of(job.checkpoint)
    if not job.method.config:
        raise UsageError(
            f"{job.method.name} leaves weights as they are", "There is no checkpoint to write: serve the model itself."
        )
    if quantized is not None:
        raise UsageError(
            f"{job.source.name} is quantized already ({quantized.get('quant_method')})", "Give the original model."
        )
    algorithm, weights_source = algorithm_of(name), read_weights_source(job.checkpoint)
    extra: dict[str, Any] = {} if job.calibration is None else {"calibration": job.calibration.to_dict()}
    if job.method.kv is not None:
        extra["kv_cache"] = job.method.kv
    with unfinished_folder(folder, num_bytes(job.parameters)) as hidden:
        algorithm.check(job)
        algorithm.write(job, hidden)
        copy_companions(job.checkpoint, hidden)
        if job.source.config.vocab_size == 256:  # bytes, which no file says
            tokenizer_of(job.source, job.checkpoint).save_pretrained(str(hidden))
        write_source(hidden, weights_source, job.method.name, model=job.source.name, algorithm=name, **extra)
    return weights_source


def _dtype(config: Any) -> Any:
    """The type of the model's weights; bfloat16 where its configuration does not say."""
    import torch

    found = getattr(config, "dtype", None)
    return found if isinstance(found, torch.dtype) else torch.bfloat16


def _folder_of(source: ModelSource) -> Path:
    """Where the model's files are, downloaded if need be."""
    assert source.location is not None
    if source.kind != "hub":
        return Path(source.location)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source.location, allow_patterns=_FILES, local_files_only=True))
    except OSError as error:
        if not is_hub_reachable():
            raise EngineError(f"the weights of {source.name} are not here, and the hub cannot be reached") from error
    return Path(snapshot_download(source.location, allow_patterns=_FILES))
