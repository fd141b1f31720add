"""Where a loader was when its state was taken."""

from typing import Any

from fasttrain.base.errors import LoaderError

_NAMES = {"fingerprint": "data set", "rows": "choice of samples"}


def stored_position(state: dict[str, Any], identity: dict[str, Any], samples: int) -> tuple[int, int]:
    """Epoch and global offset of a loader's state.

    Args:
        identity: what the order of an epoch depends on, as the state must have it, too.
        samples: of an epoch.

    Raises:
        LoaderError: it was taken on another data set, order, sampling or seed, or is no state of a loader.
    """
    for key, value in identity.items():
        if state.get(key) != value:
            raise LoaderError(
                f"the loader's state was taken with another {_NAMES.get(key, key)}; resume with the same one"
            )
    epoch, offset = state.get("epoch"), state.get("offset")
    if not (isinstance(epoch, int) and isinstance(offset, int) and epoch >= 0 and 0 <= offset <= samples):
        raise LoaderError(f"the loader's state is damaged: epoch {epoch!r}, offset {offset!r}")
    return epoch, offset
