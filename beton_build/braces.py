"""Reads patterns of file names as the shell would: ``x-{000..012}.tar``."""

import re

from fasttrain.base.errors import SourceError

MAX_NAMES = 1_000_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(-?[0-9]+)\.\.(-?[0-9]+)")


def expand_braces(text: str) -> list[str]:
    """``x-{000..002}.tar`` -> x-000.tar, x-001.tar, x-002.tar; ``{a,b}`` -> a, b. Braces inside of braces are not read.

    Zeros in front of a bound pad all numbers to the width of the wider one, as in bash. Braces that hold neither a
    range nor a comma stay as they are.

    Raises:
        SourceError: there are more than a million names.
    """
    names = [""]
    end = 0
    for match in _BRACES.finditer(text):
        words = _alternatives(match[1])
        if len(names) * len(words) > MAX_NAMES:
            raise SourceError(f"{text} stands for more than {MAX_NAMES} files")
        names = [name + text[end : match.start()] + word for name in names for word in words]
        end = match.end()
    return [name + text[end:] for name in names]


def _alternatives(inside: str) -> list[str]:
    bounds = _RANGE.fullmatch(inside)
    if bounds is None:
        return inside.split(",") if "," in inside else [f"{{{inside}}}"]
    first, last = int(bounds[1]), int(bounds[2])
    if abs(last - first) >= MAX_NAMES:
        raise SourceError(f"{{{inside}}} stands for more than {MAX_NAMES} files")
    padded = any(re.fullmatch(r"-?0[0-9]+", bound) for bound in bounds.groups())
    width = max(map(len, bounds.groups())) if padded else 0
    step = 1 if last >= first else -1
    return [f"{number:0{width}d}" if width else str(number) for number in range(first, last + step, step)]
