"""The fused ensemble: C++ on each instruction set beside its NumPy reference, and that beside score tables."""

from itertools import product

import numpy as np
import pytest

from fasttrain.kernels.combine import combine
from tests.kernels.score_cases import SHAPES, tables_of

SPACES = ["logits", "probs", "log_probs"]


def kinds_of(space):
    return ["logits"] * 4 if space == "logits" else ["logits", "probs", "log_probs", "probs"]


def both(tables, weights, shape, dtype=np.float32, **options):
    found = []
    for backend in ("native", "plain"):
        out = np.full(shape, np.nan, dtype)
        found.append((combine(tables, weights, out=out, backend=backend, **options), out))
    return found


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tempered", [False, True])
def test_agrees_with_the_reference(simd, space, shape, tempered):
    dtypes = [np.float16, np.float32, np.float32, np.float16]
    tables, weights = tables_of(shape, kinds_of(space), dtypes), [0.4, 0.3, 0.2, 0.1]
    temperatures = [0.7, 1.5, 1.0, 2.0] if tempered else None
    top = min(3, shape[1])
    (native, got), (plain, expected) = both(
        tables, weights, shape, space=space, kinds=kinds_of(space), temperatures=temperatures, top=top, threads=2
    )
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(native.label, got.argmax(1))
    np.testing.assert_array_equal(native.top_classes, np.argsort(-got, axis=1, kind="stable")[:, :top])
    np.testing.assert_array_equal(native.top_values, np.take_along_axis(got, native.top_classes.astype(np.int64), 1))
    np.testing.assert_allclose(native.top_values, plain.top_values, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("space", SPACES)
def test_rows_and_columns_are_brought_into_order(simd, space):
    shape, kinds = (90, 37), kinds_of(space)
    tables = tables_of(shape, kinds, [np.float16, np.float32] * 2)
    generator = np.random.default_rng(0)
    rows = [generator.permutation(90)[:50] if number % 2 else None for number in range(4)]
    columns = [generator.permutation(37) if number > 1 else None for number in range(4)]
    straight = [
        np.ascontiguousarray((table[:50] if row is None else table[row])[:, slice(None) if column is None else column])
        for table, row, column in zip(tables, rows, columns, strict=True)
    ]
    tables = [table if row is not None else table[:50] for table, row in zip(tables, rows, strict=True)]
    weights = [0.1, 0.2, 0.3, 0.4]
    for backend in ("native", "plain"):
        got, expected = np.empty((50, 37), np.float32), np.empty((50, 37), np.float32)
        options = {"space": space, "kinds": kinds, "backend": backend}
        one = combine(tables, weights, rows=rows, columns=columns, out=got, **options)
        two = combine(straight, weights, out=expected, **options)
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(one.label, two.label)


@pytest.mark.parametrize(("space", "backend"), list(product(SPACES, ["native", "plain"])))
def test_half_precision_output_is_the_rounded_one(simd, space, backend):
    tables = tables_of((40, 27), ["logits"] * 2, [np.float16] * 2)
    half, single = np.empty((40, 27), np.float16), np.empty((40, 27), np.float32)
    options = {"space": space, "kinds": ["logits"] * 2, "backend": backend}
    one = combine(tables, [0.5, 0.5], out=half, **options)
    two = combine(tables, [0.5, 0.5], out=single, **options)
    np.testing.assert_array_equal(half, single.astype(np.float16))
    np.testing.assert_array_equal(one.label, two.label)


@pytest.mark.parametrize(("space", "kind"), [("probs", "probs"), ("log_probs", "probs"), ("log_probs", "logits")])
def test_the_same_bits_with_any_number_of_threads(simd, space, kind):
    tables = tables_of((900, 40), [kind] * 2, [np.float16, np.float32])
    outs = []
    for threads in (1, 2, 7):
        out = np.empty((900, 40), np.float32)
        combine(tables, [0.6, 0.4], space=space, kinds=[kind] * 2, out=out, threads=threads, backend="native")
        outs.append(out)
    assert outs[0].tobytes() == outs[1].tobytes() == outs[2].tobytes()


def test_a_stored_zero_is_the_smallest_number_of_its_type(simd):
    probs = np.array([[1, 0, 0], [0.5, 0.25, 0.25]], np.float16)
    out = np.empty((2, 3), np.float32)
    combine([probs], [1.0], space="log_probs", kinds=["probs"], out=out, backend="native")
    assert out[0, 1] == pytest.approx(np.log(2.0**-24), rel=1e-6)
    combine([probs.astype(np.float32)], [1.0], space="log_probs", kinds=["probs"], out=out, backend="native")
    assert out[0, 1] == pytest.approx(np.log(2.0**-149), rel=1e-6)


@pytest.mark.parametrize("backend", ["native", "plain"])
def test_tables_of_weight_0_are_left_out(backend):
    logits = np.array([[0, 1.0]], np.float32)
    out = np.empty((1, 2), np.float32)
    combine([logits, np.full((1, 2), -np.inf, np.float32)], [1, 0], space="logits", kinds=["logits"] * 2, out=out)
    np.testing.assert_array_equal(out, logits)


@pytest.mark.parametrize("backend", ["native", "plain"])
def test_a_row_that_tables_exclude_together_stays_impossible(backend):
    tables = [np.array([[0, -np.inf]], np.float32), np.array([[-np.inf, 0]], np.float32)]
    out = np.empty((1, 2), np.float32)
    combine(tables, [0.5, 0.5], space="log_probs", kinds=["log_probs"] * 2, out=out, backend=backend)
    assert np.isneginf(out).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": [1.0]}, "one a table"),
        ({"weights": [1.0, -0.1]}, "at least 0"),
        ({"weights": [1.0, np.nan]}, "at least 0"),
        ({"temperatures": [1.0, 0.0]}, "above 0"),
        ({"space": "votes"}, "the space and the kinds"),
        ({"kinds": ["logits", "probs"]}, "cannot become logits"),
        ({"out": np.empty((3, 4))}, "out is"),
        ({"out": np.empty((2, 4), np.float32)}, "does not fit"),
        ({"top": 5}, "0 to 4"),
        ({"rows": [None, np.array([0, 1, 3])]}, "rows of table 2"),
        ({"columns": [np.array([0, 1, 2]), None]}, "columns of table 1"),
        ({"columns": [np.array([0, 1, 2, -1]), None]}, "columns of table 1"),
    ],
)
def test_wrong_arguments_are_a_sentence(change, message):
    arguments = {
        "tables": [np.zeros((3, 4), np.float32)] * 2,
        "weights": [0.5, 0.5],
        "space": "logits",
        "kinds": ["logits"] * 2,
        "out": np.empty((3, 4), np.float32),
    }
    with pytest.raises(ValueError, match=message):
        combine(**{**arguments, **change})
