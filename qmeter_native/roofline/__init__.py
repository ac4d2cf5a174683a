"""Rooflines: what kernels reached beside what the machine allows, and what another machine would allow. Pure."""
