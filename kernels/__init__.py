"""Reference kernels for quantized linear layers and caches, in Triton, and the formats they read, in plain torch.

- `quantized_weight`: a quantized matrix by its meaning, whatever bytes hold it.
- `packing`: one module a format: quantize, pack, unpack.
- `weight_only`, `scaled`, `w4a8`: matrix products; `activation` quantizes their inputs; `paged_attention` reads caches.
- `oracle`: what each product must give, in double precision.

Nothing here is imported before it is used, and importing a module touches no GPU.
"""
