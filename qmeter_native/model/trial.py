"""Trials: what a method does to a model — performance, energy and quality in one row — and their JSON document.

History of the document: 1, first version. ``trial.schema.json`` beside this module is its JSON schema.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

from qmeter_native.errors import TrialError
from qmeter_native.model.estimate import Estimate

__all__ = [
    "TRIALS_FORMAT",
    "TRIALS_SCHEMA_VERSION",
    "Energy",
    "LayerError",
    "Performance",
    "Provenance",
    "Quality",
    "Size",
    "Trial",
    "trials_from_dict",
    "trials_to_dict",
]

TRIALS_FORMAT: Final = "qmeter-native trials"
TRIALS_SCHEMA_VERSION: Final = 1

_UNMEASURED: Final = Estimate.missing("not measured in this trial")


@dataclass(frozen=True, slots=True)
class Size:
    """What the weights take.

    Attributes:
        weight_bytes: All weights, quantized ones packed, with scales and zero points.
        bits_per_weight: Of the linear layers that methods quantize, likewise.
    """

    weight_bytes: Estimate = _UNMEASURED
    bits_per_weight: Estimate = _UNMEASURED


@dataclass(frozen=True, slots=True)
class Performance:
    """Under a load.

    Attributes:
        ttft_s: Time to the first token.
        tpot_s: Time of each further token.
        e2e_s: Of a request, end to end.
        output_tokens_per_s: Of all requests together.
    """

    ttft_s: Estimate = _UNMEASURED
    tpot_s: Estimate = _UNMEASURED
    e2e_s: Estimate = _UNMEASURED
    output_tokens_per_s: Estimate = _UNMEASURED


@dataclass(frozen=True, slots=True)
class Energy:
    """Under the same load.

    Attributes:
        j_per_output_token: Idle power included.
        j_per_request: Likewise.
        mean_w: Power of all devices.
    """

    j_per_output_token: Estimate = _UNMEASURED
    j_per_request: Estimate = _UNMEASURED
    mean_w: Estimate = _UNMEASURED


@dataclass(frozen=True, slots=True)
class LayerError:
    """How much one layer hurts when it alone is rounded to nearest, in the method's format.

    Attributes:
        layer: Its name in the model.
        output_error: Norm of its output's error over the norm of its output, on inputs of the baseline.
        bits_per_byte_change: Of the model in which only this layer is quantized, less the baseline's.
    """

    layer: str
    output_error: float
    bits_per_byte_change: Estimate = _UNMEASURED


@dataclass(frozen=True, slots=True)
class Quality:
    """On held-out text.

    Attributes:
        bits_per_byte: Negative log-likelihood over bytes of text.
        bits_per_byte_change: Less the baseline's; a paired interval on the same text.
        perplexity: Exponential of the negative log-likelihood of a token.
        kl_nats_per_token: Kullback-Leibler divergence of the baseline's predictions from the method's.
        top1_agreement: Share of tokens of which both find the same likeliest.
        parse_share: Share of programs written by the model that are Python.
        parse_share_change: Less the baseline's, on the same beginnings; a paired interval.
        tasks: Scores of the evaluation harness by ``task/metric``.
        layers: The layers, the worst first; empty if not asked for.
    """

    bits_per_byte: Estimate = _UNMEASURED
    bits_per_byte_change: Estimate = _UNMEASURED
    perplexity: Estimate = _UNMEASURED
    kl_nats_per_token: Estimate = _UNMEASURED
    top1_agreement: Estimate = _UNMEASURED
    parse_share: Estimate = _UNMEASURED
    parse_share_change: Estimate = _UNMEASURED
    tasks: Mapping[str, Estimate] = field(default_factory=dict)
    layers: tuple[LayerError, ...] = ()


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the figures come from.

    Attributes:
        date: ISO 8601.
        command: That measures them again.
        device: The vendor's name of what computed.
        how: ``kernel`` (ours, on a GPU), ``torch reference`` (rounded as the method does, multiplied in floating
            point: the CPU has no kernel of it), or ``unquantized``.
        dtype: Type of what is not quantized.
        algorithm: How the weights were quantized, such as ``round to nearest``.
        weights_source: As of `qmeter_native.model.manifest.EngineInfo`.
        text: Name of the held-out text; None if there was none.
        text_digest: Of what was read and scored: qualities can be compared where it is the same.
        num_bytes: Of the text, scored.
        baseline: Method that changes are against.
        software: Versions by package.
        seconds: That the trial took.
    """

    date: str
    command: str
    device: str
    how: str
    dtype: str
    algorithm: str
    weights_source: str
    text: str | None = None
    text_digest: str | None = None
    num_bytes: int | None = None
    baseline: str | None = None
    software: Mapping[str, str] = field(default_factory=dict)
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """One row: a method on a model.

    Attributes:
        model: As the user wrote it.
        method: A name of `qmeter_native.quantization.methods`, or ``none``.
        scheme: Label of its format, such as ``W4A16-INT g128``.
        provenance: Where the figures come from.
        notes: What weakens them, in sentences.
    """

    model: str
    method: str
    scheme: str
    provenance: Provenance
    size: Size = field(default_factory=Size)
    performance: Performance = field(default_factory=Performance)
    energy: Energy = field(default_factory=Energy)
    quality: Quality = field(default_factory=Quality)
    notes: tuple[str, ...] = ()


def trials_to_dict(trials: Sequence[Trial]) -> dict[str, Any]:
    """Plain JSON; `trials_from_dict` reads it."""
    return {
        "document": TRIALS_FORMAT,
        "schema_version": TRIALS_SCHEMA_VERSION,
        "trials": [_plain(trial) for trial in trials],
    }


def trials_from_dict(document: Any, where: str = "the document") -> tuple[Trial, ...]:
    """The trials that a JSON document holds.

    Args:
        document: What `trials_to_dict` made, or anything else.
        where: Its file, for messages.

    Raises:
        TrialError: It is something else, damaged, or of a newer version.
    """
    if not isinstance(document, dict) or document.get("document") != TRIALS_FORMAT:
        raise TrialError(f"{where} holds no trials", "`qmeter-native quality --all -o FILE.json` makes some.")
    version = document.get("schema_version")
    if version != TRIALS_SCHEMA_VERSION:
        raise TrialError(
            f"{where} has schema version {version}, and this version reads {TRIALS_SCHEMA_VERSION}",
            "Update qmeter-native.",
        )
    try:
        return tuple(_trial(row) for row in document["trials"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TrialError(f"{where} is damaged: {error!r}", "Measure it again.") from error


def _plain(value: Any) -> Any:
    """Dataclasses, mappings and tuples as JSON has them."""
    if isinstance(value, Estimate):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    if hasattr(value, "__dataclass_fields__"):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in fields(value)}
    return value


def _trial(row: Mapping[str, Any]) -> Trial:
    quality = dict(row["quality"])
    tasks, layers = quality.pop("tasks"), quality.pop("layers")
    return Trial(
        model=row["model"],
        method=row["method"],
        scheme=row["scheme"],
        provenance=Provenance(**row["provenance"]),
        size=Size(**_estimates(row["size"])),
        performance=Performance(**_estimates(row["performance"])),
        energy=Energy(**_estimates(row["energy"])),
        quality=Quality(
            **_estimates(quality), tasks=_estimates(tasks), layers=tuple(_layer_error(layer) for layer in layers)
        ),
        notes=tuple(row["notes"]),
    )


def _layer_error(row: Mapping[str, Any]) -> LayerError:
    return LayerError(row["layer"], row["output_error"], Estimate(**row["bits_per_byte_change"]))


def _estimates(row: Mapping[str, Any]) -> dict[str, Estimate]:
    return {name: Estimate(**entry) for name, entry in row.items()}
