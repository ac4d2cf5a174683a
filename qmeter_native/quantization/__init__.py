"""Quantized checkpoints: the formats that serving engines load, and a writer for models that exist as shapes only."""
