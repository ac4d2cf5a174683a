"""Which layers hurt: each linear layer rounded alone, on the inputs that it has in the baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from qmeter_native.model.trial import LayerError
from qmeter_native.quality.rounded_model import RoundedLinear
from qmeter_native.quality.scoring import BlockScores, Progress, Reference, score
from qmeter_native.quality.text import HeldOutText, Window
from qmeter_native.quantization.checkpoint_formats.families import checkpoint_format
from qmeter_native.quantization.method import Method
from qmeter_native.quantization.quantize_model import linear_layers

__all__ = ["layer_errors", "layer_scores"]

NUM_PROBES: Final = 4
"""Windows whose inputs are looked at: 4096 tokens, which leave the errors of two halves alike to a few per cent."""


def layer_errors(model: Any, method: Method, text: HeldOutText) -> list[LayerError]:
    """Output errors of all layers that the method quantizes, the worst first. Memory holds one layer more at a time.

    Args:
        model: The baseline.
        method: Of which the format counts: layers are rounded to nearest, whatever its algorithm.
        text: Whose first windows are run.
    """
    import torch

    layout = checkpoint_format(method.config)
    errors: dict[str, float] = {}

    def hook(name: str) -> Callable[[Any, Any, Any], None]:
        def compare(linear: Any, inputs: Any, output: Any) -> None:
            found = rounded(linear, layout.layer(name))(inputs[0])
            errors[name] = float((found.float() - output.float()).norm() / output.float().norm())

        return compare

    layers = {name: layer for name, layer in linear_layers(model).items() if layout.layer(name) is not None}
    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        tokens = torch.from_numpy(np.stack([window.tokens[:-1] for window in _probes(text)])).to(model.device)
        with torch.inference_mode():
            model(input_ids=tokens, use_cache=False, logits_to_keep=1)
    finally:
        for handle in handles:
            handle.remove()
    worst = sorted(errors.items(), key=lambda entry: -entry[1])
    return [LayerError(name, error) for name, error in worst]


def layer_scores(
    model: Any, method: Method, layer: str, text: HeldOutText, reference: Reference, progress: Progress
) -> BlockScores:
    """Scores of the baseline with one layer rounded; it is put back."""
    linear = model.get_submodule(layer)
    model.set_submodule(layer, rounded(linear, checkpoint_format(method.config).layer(layer)))
    try:
        return score(model, text, reference, progress)
    finally:
        model.set_submodule(layer, linear)


def rounded(linear: Any, layout: Any) -> Any:
    """A layer rounded to nearest, as its device multiplies it."""
    import torch

    with torch.no_grad():
        layer = layout.linear(layout.quantize(linear.weight), linear.bias, linear.weight.dtype)
    return RoundedLinear(layer) if layer.device.type == "cpu" else layer


def _probes(text: HeldOutText) -> Sequence[Window]:
    """Windows of the commonest shape, spread over the text."""
    shapes = [window.shape for window in text.windows]
    common = max(set(shapes), key=shapes.count)
    windows = [window for window in text.windows if window.shape == common]
    count = min(NUM_PROBES, len(windows))
    return [windows[index * len(windows) // count] for index in range(count)]
