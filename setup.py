"""Builds the extension and maps `kernels/` to `qmeter_native.kernels`; everything else is in pyproject.toml."""

from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import find_packages, setup

ParallelCompile("QMETER_BUILD_JOBS", default=0).install()

setup(
    # A top-level package called `kernels` belongs to another, widely used project.
    packages=[*find_packages(include=["qmeter_native", "qmeter_native.*"]), "qmeter_native.kernels"],
    package_dir={"qmeter_native.kernels": "kernels"},
    ext_modules=[
        Pybind11Extension(
            "qmeter_native._native",
            sorted(map(str, Path("csrc").rglob("*.cpp"))),
            depends=sorted(map(str, Path("csrc").rglob("*.h"))),
            include_dirs=["csrc"],
            cxx_std=17,
            extra_compile_args=["-Wall", "-Wextra", "-O2", "-pthread"],
            libraries=["dl", "pthread"],
        )
    ],
)
