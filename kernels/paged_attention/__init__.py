"""Attention of the newest tokens over caches of keys and values that lie in pages, quantized or not.

- `cache`: the pages, and which formats they hold.
- `decode`: attention, its splits over the context, and their sum.
- `write`: quantizes new keys and values into pages.
- `kernel`, `codes`: what the GPU runs.
- `reference`: the definition in double precision, the bound of a right kernel's error, and plain torch for CPUs.
"""
