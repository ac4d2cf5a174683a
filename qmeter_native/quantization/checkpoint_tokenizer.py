"""Tokenizers for models that have none: serving engines and calibration want one even for prompts of token ids."""

from __future__ import annotations

from typing import Any

__all__ = ["byte_tokenizer", "word_tokenizer"]


def word_tokenizer(config: Any) -> Any:
    """One word a token id, ``t0 t1 …``, for a model of random weights.

    Args:
        config: transformers' ``PretrainedConfig``.

    Returns:
        transformers' ``PreTrainedTokenizerFast``.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({f"t{number}": number for number in range(config.vocab_size)}, "t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _fast(tokenizer, config, lambda number: f"t{number}")


def byte_tokenizer(config: Any) -> Any:
    """A token id is a byte of UTF-8, for a model of 256 ids.

    Args:
        config: transformers' ``PretrainedConfig``.

    Returns:
        transformers' ``PreTrainedTokenizerFast``.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = _letters_of_bytes()
    tokenizer = Tokenizer(models.BPE({letter: byte for byte, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _fast(tokenizer, config, lambda number: letters[number])


def _fast(tokenizer: Any, config: Any, word_of: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    end = config.eos_token_id[0] if isinstance(config.eos_token_id, list) else config.eos_token_id
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=None if end is None else word_of(end),
        model_max_length=getattr(config, "max_position_embeddings", 1 << 20),
    )


def _letters_of_bytes() -> list[str]:
    """The letter that stands for each byte in byte-level vocabularies since GPT-2: printable Latin-1 for itself, all
    others for the code points from 256 on, in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
