"""The work model: what a model's layers must compute and move, whoever wrote the kernels. Arithmetic only."""
