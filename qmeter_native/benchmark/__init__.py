"""Kernel benchmarks: how long a product takes, what it costs, beside its peers and its roof."""
