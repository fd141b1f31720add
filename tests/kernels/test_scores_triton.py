"""The Triton kernels of score arithmetic against the NumPy reference: on a GPU, else in Triton's interpreter."""

import numpy as np
import pytest
import torch

from fasttrain.kernels.assign import assign
from fasttrain.kernels.combine import combine
from fasttrain.kernels.combine_torch import TorchCombine
from fasttrain.kernels.softmax_colsum import softmax_colsum_dual
from fasttrain.kernels.softmax_colsum_torch import TorchColumnSums

from .interpreted import DEVICE, on_device, outside, run_in_interpreter
from .score_cases import offsets_of, scores_of, tables_of

pytest.importorskip("triton", reason="Triton comes with torch for CUDA on Linux only")

SHAPES = [(1, 1), (1, 40), (7, 3), (50, 33), (5, 1000), (3, 2049), (2, 17_000)]
DTYPES = [torch.float16, torch.bfloat16, torch.float32]


@outside
def test_all_of_this_in_the_interpreter() -> None:
    run_in_interpreter(__file__)


def case(shape: tuple[int, int], dtype: torch.dtype) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Scores for the device, the same values for NumPy, and offsets."""
    scores = torch.tensor(scores_of(shape, np.float32)).to(dtype)
    return scores, scores.double().numpy(), offsets_of(shape[1])


@on_device
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_column_sums(shape: tuple[int, int], dtype: torch.dtype) -> None:
    scores, values, offsets = case(shape, dtype)
    passes = TorchColumnSums(scores, DEVICE, triton=True)
    for temperature in (1.0, 0.1):
        sums, total = passes.dual(offsets, temperature)
        expected, expected_total = softmax_colsum_dual(values, offsets, temperature)
        assert sums.dtype == np.float64
        np.testing.assert_allclose(sums, expected, rtol=3e-5, atol=1e-6)
        assert total == pytest.approx(expected_total, rel=1e-5, abs=1e-4)
        assert sums.tobytes() == passes(offsets, temperature).tobytes()


@on_device
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*SHAPES[:-1], (2, 9000)])
def test_assignment(shape: tuple[int, int], dtype: torch.dtype) -> None:
    scores, values, offsets = case(shape, dtype)
    top = min(4, shape[1])
    got = TorchColumnSums(scores, DEVICE, triton=True).assign(offsets, 0.3, top=top)
    expected = assign(values, offsets, 0.3, top=top)
    assert got.top_classes is not None and got.top_values is not None
    np.testing.assert_array_equal(got.label, got.top_classes[:, 0])
    chosen = (values + 0.3 * offsets)[np.arange(shape[0]), got.label]
    np.testing.assert_allclose(chosen, expected.top_values[:, 0], atol=3e-6)
    np.testing.assert_allclose(got.probability, expected.probability, rtol=3e-5)
    np.testing.assert_allclose(got.margin, expected.margin, atol=6e-6)
    np.testing.assert_allclose(got.log_normaliser, expected.log_normaliser, rtol=2e-6, atol=2e-5)
    np.testing.assert_allclose(got.top_values, expected.top_values, rtol=1e-6, atol=3e-6)


@on_device
def test_ties_and_rows_without_a_class() -> None:
    scores = torch.zeros(3, 5000, dtype=torch.float16)
    scores[1, [4500, 4700]] = 1
    got = TorchColumnSums(scores, DEVICE, triton=True).assign(np.zeros(5000), 1.0)
    assert got.label.tolist() == [0, 4500, 0] and got.margin.tolist() == [0, 0, 0]
    scores[2] = -torch.inf
    for kernel in (TorchColumnSums(scores, DEVICE, triton=True), TorchColumnSums(scores, DEVICE, triton=False)):
        with pytest.raises(ValueError, match="row 2 of the scores"):
            kernel(np.zeros(5000), 1.0)


KINDS = {"logits": ["logits"] * 3, "probs": ["logits", "probs", "log_probs"], "log_probs": ["probs", "logits", "probs"]}


@on_device
@pytest.mark.parametrize("triton", [True, False])
@pytest.mark.parametrize("mixed", [True, False])
@pytest.mark.parametrize("space", ["logits", "probs", "log_probs"])
@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (20, 33), (3, 1000)])
def test_combine(shape: tuple[int, int], space: str, mixed: bool, triton: bool) -> None:
    kinds = KINDS[space] if mixed else [KINDS[space][0]] * 3
    tables = tables_of(shape, kinds, [np.float16, np.float32, np.float16] if mixed else [np.float16] * 3)
    generator = np.random.default_rng(0)
    options = {
        "space": space,
        "kinds": kinds,
        "temperatures": [0.7, 1.0, 1.5],
        "rows": [None, generator.permutation(shape[0]), None],
        "columns": [None, None, generator.permutation(shape[1])],
        "top": min(3, shape[1]),
    }
    ours, reference = np.empty(shape, np.float32), np.empty(shape, np.float32)
    got = TorchCombine(DEVICE, triton)(tables, [0.5, 0.3, 0.2], out=ours, **options)
    expected = combine(tables, [0.5, 0.3, 0.2], out=reference, backend="plain", **options)
    np.testing.assert_allclose(ours, reference, rtol=2e-6, atol=3e-6)
    np.testing.assert_array_equal(got.label, ours.argmax(1))
    np.testing.assert_allclose(got.top_values, expected.top_values, rtol=2e-6, atol=3e-6)
    half = np.empty(shape, np.float16)
    TorchCombine(DEVICE, triton)(tables, [0.5, 0.3, 0.2], out=half, **options)
    np.testing.assert_array_equal(half, ours.astype(np.float16))
