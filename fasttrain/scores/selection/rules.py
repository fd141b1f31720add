"""Which predictions become pseudo-labels: thresholds, quotas and caps a class, margin, agreement."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from fasttrain.base.errors import ScoresError

CLASS_COLUMNS = ("threshold", "at_least", "at_most")
NO_CAP = np.iinfo(np.int64).max


@dataclass(frozen=True)
class ClassRule:
    """What holds for one class instead of what holds for all; None leaves that as it is."""

    threshold: float | None = None
    at_least: int | None = None
    at_most: int | None = None


@dataclass(frozen=True)
class PseudoRules:
    """Which predictions are taken over.

    Attributes:
        threshold: kept are confidences strictly above it.
        quantile: each class has a threshold of its own besides: this quantile of the confidences of the samples
            predicted as it, which are kept from there on (0.8 keeps the surest fifth of each class). ``adsh`` takes
            the quantile at which `threshold` lies in the most frequent class, and asks nothing else of the others (Guo
            and Li, "Class-Imbalanced Semi-Supervised Learning with Adaptive Thresholding", ICML 2022).
        at_least: of each class so many are kept, the surest first, even if they are below the thresholds.
        at_most: of each class no more are kept, the surest first.
        min_margin: a label's probability exceeds that of every other class by so much at the least. Quotas do not
            override this, nor agreement.
        classes: other rules for some classes, by name.

    Raises:
        ScoresError: a value out of its range.
    """

    threshold: float | None = None
    quantile: float | Literal["adsh"] | None = None
    at_least: int = 0
    at_most: int | None = None
    min_margin: float | None = None
    classes: Mapping[str, ClassRule] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for value in (self.threshold, *(rule.threshold for rule in self.classes.values())):
            if value is not None and not 0 <= value < 1:
                raise ScoresError(f"a threshold is a probability of at least 0 and below 1, not {value}")
        if isinstance(self.quantile, float | int) and not 0 <= self.quantile < 1:
            raise ScoresError(f"a quantile is a share of at least 0 and below 1, not {self.quantile}")
        if self.quantile == "adsh" and self.threshold is None:
            raise ScoresError("adsh follows the threshold of the most frequent class, so it needs --threshold")
        if self.min_margin is not None and not 0 <= self.min_margin <= 1:
            raise ScoresError(f"a margin is a difference of probabilities from 0 to 1, not {self.min_margin}")
        counts = (self.at_least, self.at_most, *(n for r in self.classes.values() for n in (r.at_least, r.at_most)))
        if any(count is not None and count < 0 for count in counts):
            raise ScoresError("quotas and caps are counts of at least 0")

    def of_classes(self, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Threshold float64 (NaN where none is stated), quota and cap int64 (C,) of each class.

        Raises:
            ScoresError: there is no class of a name, no rule for a class, or a quota above its cap.
        """
        strangers = [name for name in self.classes if name not in set(names)]
        if strangers:
            raise ScoresError(
                f"there are rules for {strangers[0]!r}, which is none of the table's {len(names)} classes"
            )
        given = [self.classes.get(name, ClassRule()) for name in names]
        thresholds = np.array([_first(rule.threshold, self.threshold, np.nan) for rule in given], np.float64)
        quotas = np.array([_first(rule.at_least, self.at_least) for rule in given], np.int64)
        caps = np.array([_first(rule.at_most, self.at_most, NO_CAP) for rule in given], np.int64)
        if (quotas > caps).any():
            worst = int((quotas > caps).argmax())
            raise ScoresError(f"class {names[worst]!r} has a quota of {quotas[worst]} and a cap of {caps[worst]}")
        silent = np.flatnonzero(np.isnan(thresholds) & (quotas == 0)) if self.quantile is None else np.empty(0, int)
        if len(silent):
            raise ScoresError(
                f"nothing says which predictions of {names[silent[0]]!r} are kept ({len(silent)} such classes); give a "
                "threshold, a quantile of each class, or a quota"
            )
        return thresholds, quotas, caps


@dataclass(frozen=True)
class Selected:
    """What `select` kept.

    Attributes:
        rows: int64 (K,), ascending.
        thresholds: float64 (C,): the least confidence that each class asks for; NaN where only quotas keep samples.
        left_out: samples left out, by the rule that did it: margin, agreement, threshold, cap.
        filled: samples below a threshold that a quota kept.
        short: classes that miss their quota, and by how many samples.
    """

    rows: np.ndarray
    thresholds: np.ndarray
    left_out: dict[str, int]
    filled: int
    short: dict[str, int]


def select(
    rules: PseudoRules,
    names: Sequence[str],
    ids: Sequence[str],
    labels: np.ndarray,
    confidence: np.ndarray,
    margin: np.ndarray | None = None,
    agreed: np.ndarray | None = None,
) -> Selected:
    """Choose samples. What is chosen does not depend on their order: equal confidences are told apart by their ids.

    Args:
        rules: which.
        names: of the C classes.
        ids: of the N samples.
        labels: int (N,), predicted.
        confidence: float64 (N,), of the labels.
        margin: float64 (N,), what a label's probability exceeds the others by; needed for a margin rule.
        agreed: bool (N,), whether enough other models agree; None for no such rule.

    Raises:
        ScoresError: the rules do not fit the classes.
    """
    stated, quotas, caps = rules.of_classes(names)
    floor = stated.copy() if rules.quantile != "adsh" else np.full(len(names), np.nan)
    quantiles = _quantiles(rules, labels, confidence, len(names))
    sure = confidence > np.where(np.isnan(floor), np.inf if quantiles is None else -np.inf, floor)[labels]
    if quantiles is not None:
        sure &= confidence >= quantiles[labels]
    clear = np.ones(len(labels), bool) if rules.min_margin is None or margin is None else margin >= rules.min_margin
    eligible = clear if agreed is None else clear & agreed
    ranked = quotas.any() or caps.min() < NO_CAP
    rank = _ranks(ids, labels, confidence, eligible, len(names)) if ranked else np.zeros(len(labels), np.int64)
    wanted = eligible & (sure | (rank < quotas[labels]))
    kept = wanted & (rank < caps[labels])
    counts = np.bincount(labels[kept], minlength=len(names))
    missing = quotas - counts
    left_out = {
        "margin": ~clear,
        "agreement": clear & ~eligible,
        "threshold": eligible & ~wanted,
        "cap": wanted & ~kept,
    }
    return Selected(
        rows=np.flatnonzero(kept),
        thresholds=floor if quantiles is None else np.fmax(floor, quantiles),
        left_out={rule: int(rows.sum()) for rule, rows in left_out.items()},
        filled=int((kept & ~sure).sum()),
        short={names[number]: int(missing[number]) for number in np.flatnonzero(missing > 0).tolist()},
    )


def _quantiles(rules: PseudoRules, labels: np.ndarray, confidence: np.ndarray, classes: int) -> np.ndarray | None:
    """float64 (C,): the quantile of the confidences of each class, NaN for one that was not predicted."""
    if rules.quantile is None:
        return None
    counts = np.bincount(labels, minlength=classes)
    order = np.lexsort((confidence, labels))
    by_class = np.split(confidence[order], np.cumsum(counts)[:-1])
    share = rules.quantile
    if share == "adsh":
        assert rules.threshold is not None
        share = float((by_class[int(counts.argmax())] <= rules.threshold).mean())
    # A share of 1 would keep the single surest sample of each class, where none of the frequent class is kept.
    if share >= 1:
        return np.full(classes, np.inf)
    return np.array([np.quantile(values, share) if len(values) else np.nan for values in by_class])


def _ranks(
    ids: Sequence[str], labels: np.ndarray, confidence: np.ndarray, eligible: np.ndarray, classes: int
) -> np.ndarray:
    """int64 (N,): how many eligible samples of the same label are surer; for others a rank behind all of these."""
    place = np.empty(len(ids), np.int64)
    place[np.argsort(np.asarray(ids, dtype=object), kind="stable")] = np.arange(len(ids))
    order = np.lexsort((place, -confidence, ~eligible, labels))
    starts = np.concatenate([[0], np.cumsum(np.bincount(labels, minlength=classes))[:-1]])
    rank = np.empty(len(ids), np.int64)
    rank[order] = np.arange(len(ids)) - starts[labels[order]]
    return rank


def read_class_rules(path: str | Path) -> dict[str, ClassRule]:
    """Rules of single classes from a CSV file with the column ``class`` and any of `CLASS_COLUMNS`; empty: as for all.

    Raises:
        ScoresError: it is not such a file; the message names the line.
    """
    rules: dict[str, ClassRule] = {}
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = [name for name in reader.fieldnames or [] if name in CLASS_COLUMNS]
            if "class" not in (reader.fieldnames or []) or not columns:
                raise ScoresError(
                    f"{path} must be a CSV file with the column class and any of {', '.join(CLASS_COLUMNS)}"
                )
            for row in reader:
                if row["class"] in rules:
                    raise ScoresError(f"{path}, line {reader.line_num}: class {row['class']!r} has rules already")
                numbers = {key: _number(row[key], key, f"{path}, line {reader.line_num}") for key in columns}
                rules[row["class"]] = ClassRule(**numbers)  # type: ignore[arg-type]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ScoresError(
            f"rules of classes {path} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None
    return rules


def _number(text: str | None, column: str, where: str) -> float | int | None:
    if text is None or not text.strip():
        return None
    try:
        return float(text) if column == "threshold" else int(text)
    except ValueError:
        raise ScoresError(f"{where}: {column} is a number, not {text!r}") from None


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)
