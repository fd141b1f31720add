"""Ensembles in torch, as on a CUDA device, against those in NumPy."""

import numpy as np
import pytest

from fasttrain.base.errors import ScoresError
from fasttrain.scores.ensembles import ensemble as room
from fasttrain.scores.ensembles.combiner import combiner, on_device
from fasttrain.scores.table import ScoreTable

from ..made_tables import models, softmax


@pytest.fixture
def tables() -> list[ScoreTable]:
    """One of each kind, one of them in another order of rows and columns, one of 16 bits."""
    first, second, third = models((1.0, 2.0, 0.5))
    probs = softmax(second.scores.astype(np.float64)).astype(np.float16)
    probs[:5, 0] = 0
    order = np.random.default_rng(0).permutation(300)
    turned = softmax(third.scores.astype(np.float64))[order][:, ::-1]
    with np.errstate(divide="ignore"):
        log_probs = np.log(turned).astype(np.float32)
    log_probs[:5, 1] = -np.inf
    return [
        first,
        ScoreTable(second.ids, probs, second.classes, "probs"),
        ScoreTable([third.ids[row] for row in order], log_probs, third.classes[::-1], "log_probs"),
    ]


@pytest.mark.parametrize("space", ["probs", "log_probs", "logits"])
@pytest.mark.parametrize("temperatures", [None, (0.5, 2.0, 3.0)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_torch_gives_what_numpy_gives(tables, monkeypatch, space, temperatures, dtype):
    pytest.importorskip("torch")
    if space == "logits":
        tables = models((1.0, 2.0, 0.5))
    settings = {"space": space, "temperatures": temperatures, "dtype": dtype}
    for weights in ((0.5, 1.0, 1.5), (0.5, 0.0, 1.5)):
        settings["weights"] = weights
        monkeypatch.undo()
        wanted = room.ensemble(tables, **settings).scores.astype(np.float64)
        monkeypatch.setattr(room, "combiner", lambda device: on_device("cpu"))
        got = room.ensemble(tables, **settings).scores.astype(np.float64)
        np.testing.assert_allclose(got, wanted, rtol=2e-3 if dtype == "float16" else 1e-5, atol=1e-6)


def test_on_the_device_itself(tables):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        with pytest.raises(ScoresError, match="no CUDA device"):
            combiner("cuda")
        pytest.skip("there is no CUDA device")
    got = room.ensemble(tables, device="cuda").scores
    np.testing.assert_allclose(got, room.ensemble(tables).scores, rtol=1e-5, atol=1e-6)
