"""Fixtures that the kernels' tests share."""

from collections.abc import Iterator

import pytest

from fasttrain.kernels import loading
from fasttrain.kernels.indexed import IndexedReader


@pytest.fixture(params=loading.usable_simd() if loading.loading_available() else [])
def simd(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that can be used here, in use during the test."""
    before = loading.current_simd()
    loading.force_simd(request.param)
    yield request.param
    loading.force_simd(before)


@pytest.fixture
def reader() -> IndexedReader:
    return IndexedReader()
