"""Trains `builtin:stdlib-lm`, a byte-level Llama on the Python standard library's source.

    python tools/train_stdlib_lm.py --corpus .bench/stdlib --minutes 5 --out .bench/stdlib_lm

Needs torch and transformers. ``--corpus`` is the folder that `tools/stdlib_corpus.py` wrote. The time budget covers
compilation and training; learning rate and warm-up follow the share of it that has passed. The weights of the best
validation score are written as a transformers checkpoint (bfloat16), then scored on the held-out test modules.
"""

from __future__ import annotations

import argparse
import datetime
import json
import lzma
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn import functional
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM

BOS = 0  # byte 0 occurs in no source file: it begins and ends a document
CONTEXT = 1024
EVALUATION_STRIDE = 512  # every scored byte sees at least 512 bytes of context, where its file has them
MAX_WEIGHT_BYTES = 4 * 1024 * 1024
WARMUP_SHARE = 0.02
FINAL_LEARNING_RATE = 0.02  # of the peak
VALIDATION_BYTES = 400_000  # scored during training; the whole split is scored at the end
NUM_BOOTSTRAP = 2_000


@dataclass(frozen=True, slots=True)
class Document:
    """One held-out file: its module and its bytes as token ids (int64, BOS first)."""

    module: str
    tokens: torch.Tensor


@dataclass(frozen=True, slots=True)
class Corpus:
    """Training bytes (uint8, one tensor) and the held-out documents by split."""

    train: torch.Tensor
    validation: list[Document]
    test: list[Document]
    python: str


def load_corpus(folder: Path) -> Corpus:
    """Reads what `tools/stdlib_corpus.py` wrote."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    held_out = {}
    for split in ("validation", "test"):
        text = lzma.decompress((folder / f"{split}.xz").read_bytes())
        position, documents = 0, []
        for _, module, num_bytes, _ in manifest["splits"][split]["files"]:
            chunk = text[position : position + num_bytes + 1]
            documents.append(Document(module, torch.from_numpy(np.frombuffer(chunk, np.uint8).astype(np.int64))))
            position += num_bytes + 1
        held_out[split] = documents
    train = torch.from_numpy(np.frombuffer(lzma.decompress((folder / "train.xz").read_bytes()), np.uint8).copy())
    return Corpus(train, held_out["validation"], held_out["test"], manifest["python"])


def causal_attention(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
) -> tuple[torch.Tensor, None]:
    """Causal attention over whole windows, without the mask that transformers materialises under torch.compile."""
    output = functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    return output.transpose(1, 2).contiguous(), None


def build_model(seed: int) -> LlamaForCausalLM:
    """2.03 million parameters, 3.9 MiB in bfloat16; every matrix dimension is a multiple of 128."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=256,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=BOS,
        eos_token_id=BOS,
        pad_token_id=BOS,
        use_cache=True,
    )
    AttentionInterface.register("causal", causal_attention)
    return LlamaForCausalLM._from_config(config, attn_implementation="causal")


def loss_function(model: LlamaForCausalLM, reduction: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Cross entropy in nats of each next byte of a (batch, time + 1) tensor of token ids."""

    def loss(tokens: torch.Tensor) -> torch.Tensor:
        hidden = model.model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
        logits = model.lm_head(hidden).float()
        return functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction=reduction)

    return loss


def module_bits(
    model: LlamaForCausalLM, documents: list[Document], batch: int, device: torch.device
) -> dict[str, tuple[float, int]]:
    """Per module (bits, bytes): every byte of every file scored once, in windows that overlap by half."""
    windows: list[tuple[str, torch.Tensor, int]] = []  # module, tokens, first scored target
    for document in documents:
        tokens, begin = document.tokens, 0
        while True:
            first = 0 if begin == 0 else CONTEXT - EVALUATION_STRIDE
            windows.append((document.module, tokens[begin : begin + CONTEXT + 1], first))
            if begin + CONTEXT + 1 >= len(tokens):
                break
            begin += EVALUATION_STRIDE
    totals: dict[str, tuple[float, int]] = {}
    nats = loss_function(model, "none")
    model.eval()
    for position in range(0, len(windows), batch):
        rows = windows[position : position + batch]
        padded = torch.nn.utils.rnn.pad_sequence([row[1] for row in rows], batch_first=True)  # padding comes after
        with torch.no_grad():
            losses = nats(padded.to(device)).view(len(rows), -1).double().cpu()
        for (module, tokens, first), row_losses in zip(rows, losses, strict=True):
            scored = row_losses[first : len(tokens) - 1]
            bits, count = totals.get(module, (0.0, 0))
            totals[module] = (bits + float(scored.sum()) / math.log(2), count + len(scored))
    model.train()
    return totals


def bits_per_byte(totals: dict[str, tuple[float, int]]) -> float:
    """Total bits over total bytes."""
    return sum(bits for bits, _ in totals.values()) / sum(count for _, count in totals.values())


def bootstrap_interval(totals: dict[str, tuple[float, int]], seed: int) -> tuple[float, float]:
    """95 % interval of bits per byte when modules are resampled with replacement."""
    pairs = np.array(list(totals.values()))
    draws = np.random.default_rng(seed).integers(len(pairs), size=(NUM_BOOTSTRAP, len(pairs)))
    sums = pairs[draws].sum(axis=1)
    low, high = np.percentile(sums[:, 0] / sums[:, 1], [2.5, 97.5])
    return float(low), float(high)


def excerpt(documents: list[Document], num_bytes: int) -> list[Document]:
    """The beginnings of the documents, about ``num_bytes`` in all."""
    share = num_bytes / sum(len(document.tokens) for document in documents)
    lengths = [max(2, int(share * len(document.tokens))) for document in documents]
    return [Document(each.module, each.tokens[:length]) for each, length in zip(documents, lengths, strict=True)]


@dataclass(slots=True)
class Trainer:
    """One training run. ``device`` decides the arithmetic: bfloat16 autocast with float32 master weights on both."""

    model: LlamaForCausalLM
    corpus: Corpus
    device: torch.device
    batch: int
    peak_learning_rate: float
    seconds: float
    seed: int
    num_tokens: int = 0
    best_bits: float = math.inf
    best_weights: dict[str, torch.Tensor] | None = None

    def run(self, evaluate_every_s: float) -> None:
        """Trains until the time is up; keeps the weights of the best validation score."""
        begin = time.monotonic()
        generator = torch.Generator(device=self.device).manual_seed(self.seed)
        train = self.corpus.train.to(self.device)
        window = torch.arange(CONTEXT + 1, device=self.device)
        optimizer = self._optimizer()
        step_loss = self._compiled_loss(train[: CONTEXT + 1].long().repeat(self.batch, 1))
        next_evaluation, step = evaluate_every_s, 0
        while (progress := (time.monotonic() - begin) / self.seconds) < 1:
            for group in optimizer.param_groups:
                group["lr"] = self.peak_learning_rate * schedule(progress)
            starts = torch.randint(len(train) - CONTEXT - 1, (self.batch, 1), device=self.device, generator=generator)
            loss = step_loss(train[starts + window].long())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            self.num_tokens += self.batch * CONTEXT
            step += 1
            if step % 200 == 0 or self.device.type == "cpu":
                bits = loss.item() / math.log(2)
                print(f"step {step} progress {progress:.3f} train {bits:.4f} bits/byte", flush=True)
            if time.monotonic() - begin > next_evaluation:
                self._validate(step)
                next_evaluation = time.monotonic() - begin + evaluate_every_s
        self._validate(step)

    def _optimizer(self) -> torch.optim.Optimizer:
        matrices = [weight for weight in self.model.parameters() if weight.dim() >= 2]
        vectors = [weight for weight in self.model.parameters() if weight.dim() < 2]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), fused=self.device.type == "cuda")

    def _compiled_loss(self, example: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """The mean loss under autocast: compiled on CUDA, eager on a CPU or where compilation fails."""
        mean_loss = loss_function(self.model, "mean")

        def eager(tokens: torch.Tensor) -> torch.Tensor:
            with torch.autocast(self.device.type, torch.bfloat16):
                return mean_loss(tokens)

        if self.device.type != "cuda":
            return eager
        compiled: Callable[[torch.Tensor], torch.Tensor] = torch.compile(eager, dynamic=False)
        try:
            compiled(example).backward()
        except Exception as error:  # inductor fails in many ways; each leaves the eager path intact
            print(f"torch.compile failed, going on without it: {error}", file=sys.stderr)
            compiled = eager
        self.model.zero_grad(set_to_none=True)
        return compiled

    def _validate(self, step: int) -> None:
        documents = excerpt(self.corpus.validation, VALIDATION_BYTES if self.device.type == "cuda" else 4_000)
        bits = bits_per_byte(module_bits(self.model, documents, self.batch, self.device))
        print(f"step {step} tokens {self.num_tokens:.3e} validation {bits:.4f} bits/byte", flush=True)
        if bits < self.best_bits:
            self.best_bits = bits
            state = self.model.state_dict()
            self.best_weights = {name: weight.detach().cpu().clone() for name, weight in state.items()}


def schedule(progress: float) -> float:
    """Learning rate as a share of its peak: linear warm-up, then a cosine down to 2 %."""
    if progress < WARMUP_SHARE:
        return max(progress, 1e-3) / WARMUP_SHARE
    cosine = 0.5 * (1 + math.cos(math.pi * (progress - WARMUP_SHARE) / (1 - WARMUP_SHARE)))
    return FINAL_LEARNING_RATE + (1 - FINAL_LEARNING_RATE) * cosine


def save_checkpoint(model: LlamaForCausalLM, folder: Path) -> int:
    """Writes config.json and model.safetensors in bfloat16; returns the bytes of the latter."""
    model.to(torch.bfloat16).save_pretrained(folder)
    num_bytes = (folder / "model.safetensors").stat().st_size
    if num_bytes > MAX_WEIGHT_BYTES:
        raise SystemExit(f"{folder / 'model.safetensors'} has {num_bytes} bytes, more than {MAX_WEIGHT_BYTES}")
    return num_bytes


def metric(value: float, unit: str, n: int, interval: tuple[float, float] | None = None) -> dict[str, Any]:
    """One entry of a result file."""
    low, high = interval or (None, None)
    return {"value": value, "unit": unit, "low": low, "high": high, "n": n}


def device_name(device: torch.device) -> str:
    """What the run was made on."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def parse_arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder written by tools/stdlib_corpus.py")
    parser.add_argument("--out", type=Path, required=True, help="folder for config.json and model.safetensors")
    parser.add_argument("--results", type=Path, help="result file; stdlib-lm.json beside the model folder if not given")
    parser.add_argument("--minutes", type=float, default=5.0, help="compilation and training")
    parser.add_argument("--batch", type=int, default=128, help="windows of 1024 bytes per optimizer step")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="peak")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="score only the beginnings of the held-out files")
    return parser.parse_args()


def main() -> None:
    """Trains, saves, scores what was saved, writes the result file."""
    arguments = parse_arguments()
    device = torch.device(arguments.device)
    torch.backends.cuda.matmul.allow_tf32 = False  # the published score is of bfloat16 weights in float32 arithmetic
    corpus = load_corpus(arguments.corpus)
    model = build_model(arguments.seed).to(device)
    seconds = arguments.minutes * 60
    trainer = Trainer(model, corpus, device, arguments.batch, arguments.learning_rate, seconds, arguments.seed)
    trainer.run(evaluate_every_s=max(seconds / 15, 1.0))
    model.load_state_dict(trainer.best_weights or model.state_dict())
    num_bytes = save_checkpoint(model, arguments.out)

    model.float()
    documents = {"validation": corpus.validation, "test": corpus.test, "train": train_sample(corpus.train)}
    if arguments.smoke:
        documents = {split: excerpt(members, 20_000) for split, members in documents.items()}
    scores = {split: module_bits(model, members, arguments.batch, device) for split, members in documents.items()}
    metrics = {
        f"{split}_bits_per_byte": metric(
            bits_per_byte(totals),
            "bit/B",
            len(totals),
            None if split == "train" else bootstrap_interval(totals, arguments.seed),
        )
        for split, totals in scores.items()
    }
    metrics["num_parameters"] = metric(model.num_parameters(), "1", 1)
    metrics["weight_bytes"] = metric(num_bytes, "B", 1)
    metrics["tokens_seen"] = metric(trainer.num_tokens, "token", 1)
    metrics["train_bytes"] = metric(len(corpus.train), "B", 1)
    result = {
        "name": "stdlib-lm",
        "date": datetime.date.today().isoformat(),
        "command": f"python tools/train_stdlib_lm.py --corpus .bench/stdlib --minutes {arguments.minutes:g}"
        f" --batch {arguments.batch} --learning-rate {arguments.learning_rate:g} --seed {arguments.seed}",
        "device": device_name(device),
        "software": f"torch {torch.__version__}, transformers {transformers.__version__}, CPython {corpus.python}",
        "metrics": metrics,
    }
    path = arguments.results or arguments.out.parent / "stdlib-lm.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


def train_sample(train: torch.Tensor) -> list[Document]:
    """One in 16 of the training text's stretches of 64 KiB, as documents without a module of their own."""
    stretches = train.split(65_536)[::16]
    return [Document("train", stretch.long()) for stretch in stretches]


if __name__ == "__main__":
    main()
