"""One module a family of quantized checkpoints: which layers are quantized, what tensors they have, what they do."""
