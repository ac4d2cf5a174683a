"""What turns a model into a quantized checkpoint: one module a family of algorithms."""
