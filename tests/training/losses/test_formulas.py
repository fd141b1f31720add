"""Each loss against its formula in NumPy, and that it is another one than cross-entropy."""

import json

import numpy as np
import pytest
import torch

from fasttrain.base.config import load_settings
from fasttrain.base.errors import ConfigError
from fasttrain.models.heads import HeadSettings
from fasttrain.training.losses.base import Facts
from fasttrain.training.losses.criterion import make_criterion
from fasttrain.training.losses.margins import adaptive_margins
from fasttrain.training.losses.settings import LossSettings

B, C = 12, 5
COUNTS = [50, 20, 5, 1, 0]


def criterion(kind="ce", head=None, smoothing=0.0, counts=COUNTS, names=None, **changes):
    chosen = load_settings(LossSettings, {"kind": kind, **changes})
    facts = Facts(C, None if counts is None else torch.tensor(counts))
    return make_criterion(chosen, load_settings(HeadSettings, head or {}), smoothing, facts, names)


def example(rows=B, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (rows, C))
    labels = np.arange(B) % C
    soft = rng.dirichlet(np.ones(C), B)
    return logits, labels, soft


def found(rule, logits, labels, soft=None, valid=None):
    valid = torch.ones(len(labels), dtype=torch.bool) if valid is None else torch.tensor(valid)
    shares = None if soft is None else torch.tensor(soft, dtype=torch.float32)
    result = rule(torch.tensor(logits, dtype=torch.float32), torch.tensor(labels), valid, shares)
    assert result.dtype == torch.float32 and result.shape == (len(labels),)
    return result.numpy()


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def one_hot(labels, smoothing=0.0):
    return np.eye(C)[labels] * (1 - smoothing) + smoothing / C


def ce(z, y):
    return -(y * log_softmax(z)).sum(-1)


def bce(z, y):
    return -(y * -np.log1p(np.exp(-z)) + (1 - y) * -np.log1p(np.exp(z)))


def jsd(z, y, alpha):
    p = np.exp(log_softmax(z))
    m = np.log(np.clip(p.mean(0), 1e-7, 1))
    return ce(z[0], y) + alpha / 3 * sum((q * (np.log(q) - m)).sum(1) for q in p)


def seesaw(z, labels, p, q, smoothing):
    n, s = np.maximum(COUNTS, 1), np.exp(log_softmax(z))
    losses = []
    for row, y, scores in zip(z, labels, s, strict=True):
        factors = np.minimum(1, n / n[y]) ** p * np.maximum(1, scores / max(scores[y], 1e-2)) ** q
        losses.append(ce(row + np.log(factors), one_hot(y, smoothing)))
    return np.array(losses)


N = np.maximum(COUNTS, 1)
SINGLE = {  # by settings: the formula of logits and targets
    ("ce",): ce,
    ("bce",): lambda z, y: bce(z, y).mean(1),
    ("bce", ("sum_classes", True)): lambda z, y: bce(z, y).sum(1),
    ("bce", ("threshold", 0.2)): lambda z, y: bce(z, (y > 0.2).astype(float)).mean(1),
    ("focal", ("gamma", 1.5)): lambda z, y: -(y * (1 - np.exp(log_softmax(z))) ** 1.5 * log_softmax(z)).sum(1),
    ("balanced_softmax",): lambda z, y: ce(z + np.log(N), y),
    ("logit_adjustment", ("tau", 0.7)): lambda z, y: ce(z + 0.7 * np.log(N / N.sum()), y),
}


@pytest.mark.parametrize("case", SINGLE)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_labels_and_soft_targets_by_the_formula(case, smoothing):
    kind, *changes = case
    rule = criterion(kind, smoothing=smoothing, **dict(changes))
    logits, labels, soft = example()
    formula = SINGLE[case]
    np.testing.assert_allclose(found(rule, logits, labels), formula(logits, one_hot(labels, smoothing)), rtol=1e-4)
    np.testing.assert_allclose(found(rule, logits, labels, soft), formula(logits, soft), rtol=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_seesaw(smoothing):
    logits, labels, _ = example()
    rule = criterion("seesaw", smoothing=smoothing, mitigation=0.6, compensation=1.5)
    np.testing.assert_allclose(found(rule, logits, labels), seesaw(logits, labels, 0.6, 1.5, smoothing), rtol=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_three_views(smoothing):
    logits, labels, soft = example(3 * B)
    rule = criterion("jsd", smoothing=smoothing, alpha=7)
    views = logits.reshape(3, B, C)
    np.testing.assert_allclose(found(rule, logits, labels), jsd(views, one_hot(labels, smoothing), 7), rtol=1e-4)
    np.testing.assert_allclose(found(rule, logits, labels, soft), jsd(views, soft, 7), rtol=1e-4)
    with pytest.raises(ConfigError, match="compares 3 views of each of 12 samples, but got 12 rows"):
        found(rule, logits[:B], labels)


@pytest.mark.parametrize("kind", ["bce", "focal", "balanced_softmax", "logit_adjustment", "seesaw"])
def test_no_loss_is_plain_cross_entropy(kind):
    """Of values and of gradients; `softmax_eql` and `jsd` have tests of their own."""
    gradients = []
    for name in ("ce", kind):
        logits = torch.tensor(example()[0], dtype=torch.float32, requires_grad=True)
        labels = torch.tensor(example()[1])
        criterion(name)(logits, labels, torch.ones(B, dtype=torch.bool)).sum().backward()
        gradients.append(logits.grad)
    assert (gradients[0] - gradients[1]).abs().amax(1).min() > 1e-3


def test_consistency_acts_where_views_differ_and_only_there():
    logits, labels, _ = example(3 * B)
    same = np.tile(logits[:B], (3, 1))
    np.testing.assert_allclose(found(criterion("jsd"), same, labels), ce(same[:B], one_hot(labels)), rtol=1e-4)
    assert (found(criterion("jsd"), logits, labels) > ce(logits[:B], one_hot(labels)) + 0.01).all()


@pytest.mark.parametrize("easy", [False, True])
@pytest.mark.parametrize("margin", [0.5, 2.0])
def test_a_margin_widens_the_angle_of_the_true_class(easy, margin):
    rng = np.random.default_rng(1)
    cosines, labels = rng.uniform(-1, 1, (B, C)), np.arange(B) % C
    rule = criterion(head={"kind": "arcface", "scale": 16, "margin": margin, "easy_margin": easy})
    expected = cosines.copy()
    for row, y in enumerate(labels):
        c = cosines[row, y]
        ahead = np.cos(np.arccos(c) + margin)
        other, limit = (c, 0) if easy else (c - margin * np.sin(np.pi - margin), np.cos(np.pi - margin))
        expected[row, y] = ahead if c > limit else other
    losses = found(rule, 16 * cosines, labels)
    np.testing.assert_allclose(losses, ce(16 * expected, one_hot(labels)), rtol=2e-3, atol=1e-5)
    plain = found(criterion(), 16 * cosines, labels)
    assert (losses >= plain - 1e-6).all() and (losses > plain + 0.1).any()


def test_margins_grow_with_rarity():
    """The most frequent class has the least, the rarest that there is the largest; absent ones as that."""
    rarity = np.array([50, 20, 5, 1.0]) ** -0.25
    expected = (rarity - rarity.min()) / (rarity.max() - rarity.min()) * 0.45 + 0.05
    found_ = adaptive_margins(Facts(C, torch.tensor(COUNTS)), (0.05, 0.5))
    np.testing.assert_allclose(found_, [*expected, 0.5], rtol=1e-5)
    np.testing.assert_allclose(adaptive_margins(Facts(3, torch.tensor([7, 7, 0])), (0.1, 0.5)), 0.3, rtol=1e-6)
    logits, labels, _ = example()
    head = {"kind": "arcface", "scale": 8}
    fixed, adaptive = criterion(head=head), criterion(head={**head, "adaptive": True})
    assert not np.allclose(found(fixed, logits, labels), found(adaptive, logits, labels))


def test_class_weights_by_rule():
    logits, labels, soft = example()
    plain = ce(logits, one_hot(labels))
    inverse = N.sum() / (C * N)
    np.testing.assert_allclose(
        found(criterion(class_weights="inverse"), logits, labels), plain * inverse[labels], rtol=1e-4
    )
    effective = (1 - 0.9) / (1 - 0.9**N)
    effective = effective / effective.mean()
    rule = criterion(class_weights="effective", beta=0.9)
    np.testing.assert_allclose(found(rule, logits, labels), plain * effective[labels], rtol=1e-4)
    np.testing.assert_allclose(found(rule, logits, labels, soft), ce(logits, soft) * (soft @ effective), rtol=1e-4)


def test_class_weights_from_files(tmp_path):
    names, values = ["a", "b", "c", "d", "e"], [1.0, 2.0, 0.5, 0.0, 3.0]
    logits, labels, _ = example()
    expected = ce(logits, one_hot(labels)) * np.array(values)[labels]
    contents = {
        "list.json": json.dumps(values),
        "names.json": json.dumps(dict(zip(reversed(names), reversed(values), strict=True))),
        "lines.txt": "\n".join(map(str, values)),
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
        rule = criterion(class_weights=str(tmp_path / name), names=names)
        np.testing.assert_allclose(found(rule, logits, labels), expected, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(found(criterion(class_weights=values), logits, labels), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", '{"a": 1, "b": 1, "c": 1, "d": 1, "f": 1}', "lacks class 'e'"),
        ("a.json", '{"a": 1, "b": 1, "c": 1, "d": 1, "e": 1, "f": 1}', "names 'f', which is no class"),
        ("a.json", "3", "must hold one number for each class"),
        ("a.txt", "1 2 x 3 4", "must hold one number for each class"),
        ("a.txt", "1 2", "holds 2 numbers, and there are 5 classes"),
        ("a.txt", "1 2 3 4 -5", "none below 0"),
        ("a.txt", "1 2 3 4 nan", "none below 0"),
        ("a.txt", "0 0 0 0 0", "not all 0"),
    ],
)
def test_class_weights_that_cannot_be_are_refused(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=words):
        criterion(class_weights=str(tmp_path / name), names=list("abcde"))
    with pytest.raises(ConfigError, match="did you mean 'inverse'"):
        criterion(class_weights="inverze")


def test_the_hardest_samples_learn_alone():
    logits, labels, _ = example()
    valid = np.ones(B, bool)
    valid[[1, 4]] = False
    plain = ce(logits, one_hot(labels)) * valid
    kept = plain >= np.sort(plain)[-3]  # 3 of 10
    np.testing.assert_allclose(
        found(criterion(hardest=0.3), logits, labels, valid=valid), plain * kept * 10 / 3, rtol=1e-4
    )
    nothing = found(criterion(hardest=0.3), logits, labels, valid=np.zeros(B, bool))
    assert (nothing == 0).all()


def test_losses_of_several_rows_of_an_image_are_averaged():
    logits, labels, soft = example(2 * B)
    expected = (ce(logits[:B], soft) + ce(logits[B:], soft)) / 2
    np.testing.assert_allclose(found(criterion(), logits, labels, soft), expected, rtol=1e-4)
    logits = example(6 * B)[0]
    views = logits.reshape(2, 3, B, C)
    expected = (jsd(views[0], one_hot(labels), 12) + jsd(views[1], one_hot(labels), 12)) / 2
    np.testing.assert_allclose(found(criterion("jsd"), logits, labels), expected, rtol=1e-4)


def test_what_needs_labels_or_counts_says_so():
    logits, labels, soft = example()
    for rule in (criterion("seesaw"), criterion("softmax_eql"), criterion(head={"kind": "arcface"})):
        assert not rule.takes_soft_targets
        with pytest.raises(ConfigError, match="needs one label for each image"):
            found(rule, logits, labels, soft)
    for settings in (
        {"kind": "balanced_softmax"},
        {"kind": "logit_adjustment"},
        {"kind": "seesaw"},
        {"class_weights": "inverse"},
        {"class_weights": "effective"},
        {"head": {"kind": "arcface", "adaptive": True}},
    ):
        with pytest.raises(ConfigError, match="how many samples each class has"):
            criterion(counts=None, **settings)
