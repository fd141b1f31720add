"""Maps the top-level folders into the ``fasttrain`` namespace.

``kernels/`` and ``beton_build/`` are rooms of their own at the top of the repository, but they are imported as
``fasttrain.kernels`` and ``fasttrain.beton_build``: a bare ``kernels`` in site-packages would be another project's.
"""

from setuptools import find_packages, setup

MAPPED_FOLDERS = {"fasttrain.kernels": "kernels", "fasttrain.beton_build": "beton_build"}

packages = ["fasttrain", *(f"fasttrain.{name}" for name in find_packages("fasttrain"))]
for package, folder in MAPPED_FOLDERS.items():
    packages += [package, *(f"{package}.{name}" for name in find_packages(folder))]

# Not a package, but setuptools takes every folder with data for one.
packages.append("fasttrain.report.templates")

setup(
    packages=packages,
    package_dir={"fasttrain": "fasttrain", **MAPPED_FOLDERS},
    package_data={"fasttrain": ["py.typed"], "fasttrain.report.templates": ["*"]},
)
