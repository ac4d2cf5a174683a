"""How much worse a model becomes by quantization: on held-out text, layer by layer, in programs that it writes."""
