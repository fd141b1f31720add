"""The samples that a command left out because they could not be decoded: gathered, said, and reported."""

from collections.abc import Iterable

from fasttrain.base.console import say
from fasttrain.base.distributed import gather_on_main


def report_skipped(mine: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """Say which samples were left out by any rank. All ranks call it.

    Args:
        mine: (string id, reason) of this rank's.

    Returns:
        [{id, error}] of all ranks, each once; nothing on any but the main one.
    """
    everywhere = dict.fromkeys(entry for part in gather_on_main(list(mine)) or [] for entry in part)
    for sample, error in everywhere:
        say(f"skipped {sample}: {error}")
    return [{"id": sample, "error": error} for sample, error in everywhere]
