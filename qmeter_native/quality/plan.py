"""What a run of ``qmeter-native quality`` measures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qmeter_native.errors import UsageError
from qmeter_native.quality.candidate import UNQUANTIZED
from qmeter_native.quality.corpus import DEFAULT_BYTES
from qmeter_native.quantization.methods import method_named, method_names

__all__ = ["QualityPlan", "all_methods"]


@dataclass(frozen=True, slots=True)
class QualityPlan:
    """Options of `QualityRun`.

    Attributes:
        model: A local directory, a hub id or ``builtin:stdlib-lm``.
        methods: Names of `qmeter_native.quantization.methods`, without the baseline.
        checkpoints: Folders or hub ids of quantized checkpoints of the same model.
        baseline: What they are compared with: ``none``, or a method.
        text: A file to score; None: the built-in model's own held-out text.
        num_bytes: Of the text, to score.
        num_programs: Beginnings of programs that the built-in model completes, each twice; 0: none.
        has_layers: Say which layers hurt.
        tasks: Of the evaluation harness.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: ``auto`` (float32 on a CPU, bfloat16 on a GPU), ``float32``, ``bfloat16`` or ``float16``.
        seed: Of intervals and drawn programs.
        skips_failures: A method that does not suit the model becomes a row without figures, not an error.
        command: That measures it again.
    """

    model: str
    methods: tuple[str, ...]
    checkpoints: tuple[str, ...] = ()
    baseline: str = UNQUANTIZED
    text: Path | None = None
    num_bytes: int = DEFAULT_BYTES
    num_programs: int = 32
    has_layers: bool = False
    tasks: tuple[str, ...] = ()
    device: str = "auto"
    dtype: str = "auto"
    seed: int = 0
    skips_failures: bool = False
    command: str = ""

    def __post_init__(self) -> None:
        for name in (*self.methods, self.baseline):
            if name != UNQUANTIZED:
                method_named(name)  # raises where there is none
        if self.model.startswith("shape:"):
            raise UsageError(f"{self.model} has random weights, which have no quality to lose", "Take a trained model.")


def all_methods(baseline: str = UNQUANTIZED) -> tuple[str, ...]:
    """All methods but the baseline, in the order of their table."""
    return tuple(name for name in method_names() if name not in (baseline, UNQUANTIZED))
