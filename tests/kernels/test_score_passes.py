"""Column sums of row softmaxes and the final assignment: C++ on each instruction set beside float64 NumPy."""

import numpy as np
import pytest

from fasttrain.kernels.assign import assign
from fasttrain.kernels.softmax_colsum import softmax_colsum, softmax_colsum_dual
from tests.kernels.score_cases import SHAPES, offsets_of, scores_of, softmax64

DTYPES = [np.float16, np.float32]


@pytest.fixture(params=[1, 3])
def threads(request):
    return request.param


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("temperature", [1.0, 0.05])
def test_column_sums_and_log_normalisers(simd, shape, dtype, temperature, threads):
    scores, offsets = scores_of(shape, dtype), offsets_of(shape[1])
    plan, normalisers = softmax64(scores.astype(np.float64) / temperature + offsets)
    sums, total = softmax_colsum_dual(scores, offsets, temperature, threads=threads, backend="native")
    assert sums.dtype == np.float64
    np.testing.assert_allclose(sums, plan.sum(0), rtol=2e-5, atol=1e-6)
    assert total == pytest.approx(normalisers.sum(), rel=2e-6, abs=1e-5)
    assert sums.sum() == pytest.approx(shape[0], rel=1e-6)


def test_powers_of_two_are_exact_to_two_in_ten_million(simd):
    from fasttrain.kernels import _native

    values = np.linspace(-125.9, 99.9, 1 << 20, dtype=np.float32)
    for shift in (0.0, 3.0):
        out = np.empty_like(values)
        total = _native.powers_of_two(values=values + np.float32(shift), shift=shift, out=out)
        expected = np.exp2((values + np.float32(shift)).astype(np.float64) - shift)
        assert np.abs(out / expected - 1).max() <= 2e-7
        assert total == pytest.approx(expected.sum(), rel=1e-5)


def test_powers_far_below_are_0_and_far_above_stay_finite(simd):
    from fasttrain.kernels import _native

    values = np.array([-np.inf, -1e30, -127.6, 100, 101, 1e30, 0, 1] * 2, np.float32)
    out = np.empty_like(values)
    _native.powers_of_two(values=values, shift=0.0, out=out)
    np.testing.assert_allclose(out[:8], [0, 0, 0, 2.0**100, 2.0**100, 2.0**100, 1, 2], rtol=2e-7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_very_different_size(simd, dtype):
    # Each row's exponentials are first taken by the measure of the row before it.
    generator = np.random.default_rng(3)
    scores = (generator.normal(size=(600, 50)) * 3 + generator.normal(size=(600, 1)) * 300).astype(dtype)
    offsets = generator.normal(size=50) * 5
    plan, normalisers = softmax64(scores.astype(np.float64) / 0.3 + offsets)
    sums, total = softmax_colsum_dual(scores, offsets, 0.3, backend="native")
    np.testing.assert_allclose(sums, plan.sum(0), rtol=1e-3, atol=1e-5)  # exponents of 1000 have five digits
    assert total == pytest.approx(normalisers.sum(), rel=1e-5)
    assert sums.sum() == pytest.approx(600, rel=1e-6)


def test_exponents_beyond_what_floats_tell_apart(simd):
    scores = np.array([[6e4, 0, 5e4], [-6e4, -6.1e4, -6e4]], np.float32)
    sums, total = softmax_colsum_dual(scores, np.zeros(3), 0.01, backend="native")
    np.testing.assert_allclose(sums, [1.5, 0, 0.5], atol=1e-6)
    assert total == pytest.approx(np.log(2), abs=1)
    barely = np.full((2, 3), 7300, np.float32)  # exponents a little above 2^20
    assert softmax_colsum_dual(barely, np.zeros(3), 0.01, backend="native")[1] == pytest.approx(1.46e6, rel=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_bits_with_any_number_of_threads(simd, dtype):
    scores, offsets = scores_of((5000, 130), dtype), offsets_of(130)
    one, *others = [
        softmax_colsum_dual(scores, offsets, 0.4, threads=threads, backend="native") for threads in (1, 2, 5, 16)
    ]
    for other in others:
        assert other[0].tobytes() == one[0].tobytes() and other[1] == one[1]


def test_columns_that_are_taken_out_get_exactly_nothing(simd):
    offsets = np.zeros(40)
    offsets[[3, 39]] = -np.inf
    sums = softmax_colsum(np.zeros((9, 40), np.float16), offsets, 1.0, backend="native")
    assert sums[3] == sums[39] == 0
    np.testing.assert_allclose(np.delete(sums, [3, 39]), 9 / 38)


@pytest.mark.parametrize("backend", ["native", "plain"])
@pytest.mark.parametrize("bad", [-np.inf, np.nan])
def test_a_row_without_any_class_is_named(simd, backend, bad):
    scores = np.zeros((30, 5), np.float32)
    scores[[17, 21]] = bad
    scores[17, 2], offsets = 1, np.array([0, 0, -np.inf, 0, 0.0])
    for kernel in (softmax_colsum, assign):
        with pytest.raises(ValueError, match="row 17 of the scores"):
            kernel(scores, offsets, 1.0, backend=backend)


@pytest.mark.parametrize("dtype", DTYPES)
def test_mapped_and_unaligned_scores_are_read_to_their_end_alone(simd, dtype, tmp_path):
    scores = scores_of((33, 37), dtype)
    path = tmp_path / "scores"
    path.write_bytes(b"x" + scores.tobytes())
    mapped = np.memmap(path, dtype, "r", 1, scores.shape)
    sums = softmax_colsum(mapped, np.zeros(37), 1.0, backend="native")
    np.testing.assert_array_equal(sums, softmax_colsum(scores, np.zeros(37), 1.0, backend="native"))


def test_no_rows(simd):
    sums, total = softmax_colsum_dual(np.empty((0, 4), np.float16), np.zeros(4), 1.0, backend="native")
    assert sums.tolist() == [0] * 4 and total == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": np.zeros((2, 3), np.int32)}, "float16, float32 or float64"),
        ({"scores": np.zeros(3, np.float32)}, "float16, float32 or float64"),
        ({"offsets": np.zeros(4)}, "one a column"),
        ({"offsets": np.array([0, np.nan, 0])}, "numbers or -inf"),
        ({"temperature": 0.0}, "temperature"),
        ({"scores": np.zeros((2, 3)), "backend": "native"}, "native kernels"),
    ],
)
def test_wrong_arguments_are_a_sentence(change, message):
    arguments = {"scores": np.zeros((2, 3), np.float32), "offsets": np.zeros(3), "temperature": 1.0, **change}
    for kernel in (softmax_colsum, assign):
        with pytest.raises(ValueError, match=message):
            kernel(**arguments)


# --- assign ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", ["native", "plain"])
def test_assignment(simd, shape, dtype, backend, threads):
    scores, offsets, temperature = scores_of(shape, dtype), offsets_of(shape[1]), 0.3
    top = min(5, shape[1])
    got = assign(scores, offsets, temperature, top=top, threads=threads, backend=backend)
    values = scores.astype(np.float64) + temperature * offsets
    plan, normalisers = softmax64(values / temperature)
    rows = np.arange(len(scores))
    assert [got.label.dtype, got.probability.dtype, got.margin.dtype] == [np.int32, np.float32, np.float32]
    np.testing.assert_allclose(values[rows, got.label], values.max(1), atol=2e-6)
    np.testing.assert_allclose(got.probability, plan[rows, got.label], rtol=2e-5)
    np.testing.assert_allclose(got.log_normaliser, normalisers, rtol=1e-6, atol=1e-5)
    ordered = -np.sort(-values, axis=1)
    if shape[1] > 1:
        np.testing.assert_allclose(got.margin, ordered[:, 0] - ordered[:, 1], atol=5e-6)
    else:
        assert np.isinf(got.margin).all()
    np.testing.assert_allclose(got.top_values, ordered[:, :top], rtol=1e-6, atol=2e-6)
    np.testing.assert_array_equal(got.top_classes[:, 0], got.label)
    np.testing.assert_allclose(
        np.take_along_axis(values, got.top_classes.astype(np.int64), 1), ordered[:, :top], rtol=1e-6, atol=2e-6
    )
    assert all(len(set(row)) == top for row in got.top_classes.tolist())


@pytest.mark.parametrize("backend", ["native", "plain"])
def test_ties_go_to_the_lowest_class(simd, backend):
    generator = np.random.default_rng(0)
    scores = generator.integers(-2, 3, (200, 70)).astype(np.float16)
    scores[:, 5:9] = -np.inf
    got = assign(scores, np.zeros(70), 0.5, top=70, backend=backend)
    np.testing.assert_array_equal(got.label, scores.argmax(1))
    np.testing.assert_array_equal(got.top_classes, np.argsort(-scores, axis=1, kind="stable"))
    np.testing.assert_array_equal(got.top_values, np.take_along_axis(scores, got.top_classes.astype(np.int64), 1))
    assert (got.margin == 0).any()


@pytest.mark.parametrize("backend", ["native", "plain"])
def test_the_only_possible_class_has_an_infinite_margin(simd, backend):
    got = assign(np.array([[-np.inf, 1, -np.inf]], np.float32), np.zeros(3), 1.0, backend=backend)
    assert got.label[0] == 1 and np.isposinf(got.margin[0]) and got.probability[0] == 1 and got.top_classes is None


def test_more_classes_than_there_are_cannot_be_had():
    with pytest.raises(ValueError, match="0 to 3"):
        assign(np.zeros((2, 3), np.float32), np.zeros(3), 1.0, top=4)
