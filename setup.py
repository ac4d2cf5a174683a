"""Builds the extension and the injected library, and maps `csrc/cuda/` to `qmeter_native.cuda`.

`qmeter_native/kernels` is a link to `kernels/`. Everything else is in pyproject.toml.
"""

from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import find_packages, setup
from setuptools.command.build_ext import build_ext

HEADERS = sorted(map(str, Path("csrc").rglob("*.h")))
NEWEST_INPUT = max(Path(path).stat().st_mtime for path in [*HEADERS, "setup.py"])
INJECT = "qmeter_native.libqmeter_inject"
EXPORTS = "csrc/inject/exports.map"
MAPPED = {"qmeter_native.cuda": "csrc/cuda"}  # compiled at run time
LINK_TO_STAND_ALONE = [
    # The traced program has a C++ library of its own, or none.
    "-static-libstdc++",
    "-static-libgcc",
    f"-Wl,--version-script={EXPORTS}",
    "-Wl,-z,nodelete",
    "-Wl,--no-undefined",
    "-Wl,--gc-sections",
]


def is_stale(built, source):
    """Whether an object file must be made again. Both libraries are made of the same ones."""
    if not Path(built).exists():
        return True
    return Path(built).stat().st_mtime < max(NEWEST_INPUT, Path(source).stat().st_mtime)


ParallelCompile("QMETER_BUILD_JOBS", default=0, needs_recompile=is_stale).install()


class BuildNative(build_ext):
    """CUDA's driver loads the injected library, not Python: it has a plain name and no init function."""

    def get_ext_filename(self, fullname):
        """The file of an extension, relative to the build's root."""
        if fullname in (INJECT, INJECT.rpartition(".")[2]):
            return fullname.replace(".", "/") + ".so"
        return super().get_ext_filename(fullname)

    def get_export_symbols(self, ext):
        """Symbols that the linker must export, beyond those that are visible anyway."""
        return [] if ext.name == INJECT else super().get_export_symbols(ext)


def native(name, *, without, **options):
    """One shared library from all of csrc but the folders ``without``."""
    sources = (path for path in Path("csrc").rglob("*.cpp") if path.parent.name not in without)
    return Pybind11Extension(
        name,
        sorted(map(str, sources)),
        depends=[*HEADERS, EXPORTS],
        include_dirs=["csrc"],
        cxx_std=17,
        extra_compile_args=["-Wall", "-Wextra", "-O2", "-pthread", "-ffunction-sections", "-fdata-sections"],
        libraries=["dl", "pthread"],
        **options,
    )


setup(
    # The folder `kernels` is found through its link: a top-level package of that name belongs to another project.
    packages=[*find_packages(include=["qmeter_native", "qmeter_native.*"]), *MAPPED],
    package_dir=MAPPED,
    cmdclass={"build_ext": BuildNative},
    ext_modules=[
        native("qmeter_native._native", without={"inject"}),
        native(INJECT, without={"bindings"}, extra_link_args=LINK_TO_STAND_ALONE),
    ],
)
