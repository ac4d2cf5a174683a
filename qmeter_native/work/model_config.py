"""The sizes of a decoder-only transformer, from its Hugging Face ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["ModelConfig", "read_model_config"]

_DENSE: Final = frozenset(
    {"llama", "mistral", "qwen2", "qwen3", "phi3", "gemma", "gemma2", "gemma3_text", "granite", "smollm3"}
)
_MIXTURES: Final = frozenset({"mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "granitemoe", "phimoe", "gpt_oss"})
_TIED_BY_DEFAULT: Final = frozenset({"gemma", "gemma2", "gemma3_text"})
"""transformers' configuration classes of these set ``tie_word_embeddings`` where ``config.json`` does not."""
_HEAD_DIM: Final = {"gemma": 256, "gemma2": 256, "gemma3_text": 256, "qwen3": 128, "qwen3_moe": 128}
"""Defaults of transformers' configuration classes that are not ``hidden_size / num_attention_heads``."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes of a decoder whose layers are: norm, QKV projection, attention, output projection, norm, gated MLP.

    Attributes:
        model_type: As ``config.json`` names the architecture.
        num_layers: Decoder layers.
        hidden_size: Width of the residual stream.
        intermediate_size: Width of the gated MLP; of one expert in a mixture.
        num_heads: Query heads.
        num_kv_heads: Heads of keys and values (grouped-query attention).
        head_dim: Width of a head.
        vocab_size: Rows of the embedding and of the LM head.
        is_tied: The LM head is the embedding.
        window: Tokens that (some) layers attend to at most; None = all.
        num_experts: Experts a layer; 0 for a dense MLP.
        experts_per_token: Experts that a token visits; 0 for a dense MLP.
    """

    model_type: str
    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    is_tied: bool = False
    window: int | None = None
    num_experts: int = 0
    experts_per_token: int = 0

    @property
    def is_mixture(self) -> bool:
        """The MLP is a mixture of experts."""
        return self.num_experts > 0


def read_model_config(config: Mapping[str, Any] | None) -> tuple[ModelConfig | None, str | None]:
    """The sizes in a ``config.json``, or None and the reason why they are not known.

    A multi-modal configuration counts by its ``text_config``. Fields that are absent take the defaults of the
    architecture's class in transformers.
    """
    if not config:
        return None, "the engine did not say which model it runs"
    text = config.get("text_config")
    fields: Mapping[str, Any] = text if isinstance(text, Mapping) else config
    model_type = str(fields.get("model_type", ""))
    if not model_type:
        return None, "the model's config.json does not name its architecture"
    if model_type not in _DENSE | _MIXTURES:
        return None, f"the work model does not know the architecture {model_type!r}"
    needed = ("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size", "intermediate_size")
    missing = [name for name in needed if not isinstance(fields.get(name), int)]
    if missing:
        return None, f"the model's config.json lacks {', '.join(missing)}"
    num_experts = _first(fields, "num_local_experts", "num_experts") if model_type in _MIXTURES else 0
    heads = int(fields["num_attention_heads"])
    hidden = int(fields["hidden_size"])
    expert_size = fields.get("moe_intermediate_size") if num_experts else None
    return ModelConfig(
        model_type=model_type,
        num_layers=int(fields["num_hidden_layers"]),
        hidden_size=hidden,
        intermediate_size=int(expert_size or fields["intermediate_size"]),
        num_heads=heads,
        num_kv_heads=int(fields.get("num_key_value_heads") or heads),
        head_dim=int(fields.get("head_dim") or _HEAD_DIM.get(model_type) or hidden // heads),
        vocab_size=int(fields["vocab_size"]),
        is_tied=bool(fields.get("tie_word_embeddings", model_type in _TIED_BY_DEFAULT)),
        window=_window(fields),
        num_experts=num_experts,
        experts_per_token=_first(fields, "num_experts_per_tok", "experts_per_token") if num_experts else 0,
    ), None


def _first(fields: Mapping[str, Any], *names: str) -> int:
    """The first of several names that is given, else 0."""
    return next((int(fields[name]) for name in names if isinstance(fields.get(name), int)), 0)


def _window(fields: Mapping[str, Any]) -> int | None:
    """Sliding windows are on where a size is given, unless ``use_sliding_window`` (Qwen) says no."""
    size = fields.get("sliding_window")
    return int(size) if size and fields.get("use_sliding_window", True) else None
