"""vLLM's kernels through its library of operators, which loads without vLLM."""
