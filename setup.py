"""Maps the top-level folders into the ``fasttrain`` namespace, and builds the native kernels where that is possible.

``kernels/`` and ``beton_build/`` are rooms of their own at the top of the repository, but they are imported as
``fasttrain.kernels`` and ``fasttrain.beton_build``: a bare ``kernels`` in site-packages would be another project's.
"""

from pathlib import Path

import pybind11
from setuptools import Extension, find_packages, setup

MAPPED_FOLDERS = {"fasttrain.kernels": "kernels", "fasttrain.beton_build": "beton_build"}

packages = ["fasttrain", *(f"fasttrain.{name}" for name in find_packages("fasttrain"))]
for package, folder in MAPPED_FOLDERS.items():
    packages += [package, *(f"{package}.{name}" for name in find_packages(folder))]

# Not a package, but setuptools takes every folder with data for one.
packages.append("fasttrain.report.templates")

native = Extension(
    "fasttrain.kernels._native",
    sources=sorted(str(path) for path in Path("kernels/native").glob("*.cpp")),
    depends=sorted(str(path) for path in Path("kernels/native").glob("*.[hi]*")),
    include_dirs=[pybind11.get_include()],
    libraries=["jpeg"],
    # The last three let the compiler turn clamping and rounding into vectors.
    extra_compile_args=[
        "-O3",
        "-std=c++17",
        "-fvisibility=hidden",
        "-fno-math-errno",
        "-fno-trapping-math",
        "-ffinite-math-only",
    ],
    optional=True,  # without a compiler or libjpeg's headers, Pillow does the work, only slower
)

setup(
    packages=packages,
    package_dir={"fasttrain": "fasttrain", **MAPPED_FOLDERS},
    package_data={"fasttrain": ["py.typed"], "fasttrain.kernels": ["*.pyi"], "fasttrain.report.templates": ["*"]},
    include_package_data=False,  # the C++ sources belong into the sdist, not into the wheel
    ext_modules=[native],
)
