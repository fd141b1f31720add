"""Maps the top-level folders into the ``fasttrain`` namespace, and builds the native kernels where that is possible.

``kernels/``, ``beton_build/`` and ``recipes/`` are rooms of their own at the top of the repository, but they are
imported as ``fasttrain.kernels`` and so on: a bare ``kernels`` in site-packages would be another project's.
"""

import os
from pathlib import Path

import pybind11
from pybind11.setup_helpers import ParallelCompile
from setuptools import Extension, find_packages, setup

MAPPED_FOLDERS = {
    "fasttrain.kernels": "kernels",
    "fasttrain.beton_build": "beton_build",
    "fasttrain.recipes": "recipes",
}

packages = ["fasttrain", *(f"fasttrain.{name}" for name in find_packages("fasttrain"))]
for package, folder in MAPPED_FOLDERS.items():
    packages += [package, *(f"{package}.{name}" for name in find_packages(folder))]

# Not a package, but setuptools takes every folder with data for one.
packages.append("fasttrain.report.templates")

# Folder of a static libjpeg-turbo (kernels/native/build_libjpeg_turbo.sh), for wheels that need nothing of the system.
STATIC_JPEG = os.environ.get("FASTTRAIN_STATIC_JPEG")
ALONE = ["-static-libstdc++", "-static-libgcc", "-Wl,--exclude-libs,ALL", "-Wl,--gc-sections", "-Wl,-s"]

native = Extension(
    "fasttrain.kernels._native",
    sources=sorted(str(path) for path in Path("kernels/native").glob("*.cpp")),
    depends=sorted(str(path) for path in Path("kernels/native").glob("*.[hi]*")),
    include_dirs=[pybind11.get_include(), *([f"{STATIC_JPEG}/include"] if STATIC_JPEG else [])],
    libraries=[] if STATIC_JPEG else ["jpeg"],
    extra_objects=[f"{STATIC_JPEG}/lib/libjpeg.a"] if STATIC_JPEG else [],
    extra_link_args=ALONE if STATIC_JPEG else [],
    # The last three let the compiler turn clamping and rounding into vectors.
    extra_compile_args=[
        "-O3",
        "-g0",  # Python's own flags ask for debug information: a third of the time, and 20 MB
        "-std=c++17",
        "-fvisibility=hidden",
        "-fno-math-errno",
        "-fno-trapping-math",
        "-ffinite-math-only",
    ],
    # Without a compiler or libjpeg's headers, Pillow does the work, only slower. A wheel is to have it.
    optional=not STATIC_JPEG,
)

ParallelCompile(default=0).install()  # with all cores, a file each

setup(
    packages=packages,
    package_dir={"fasttrain": "fasttrain", **MAPPED_FOLDERS},
    package_data={
        "fasttrain": ["py.typed"],
        "fasttrain.kernels": ["*.pyi"],
        "fasttrain.recipes": ["*.yaml", "*/*.yaml", "palettes/*.csv"],
        "fasttrain.report.templates": ["*"],
    },
    include_package_data=False,  # the C++ sources belong into the sdist, not into the wheel
    ext_modules=[native],
)
