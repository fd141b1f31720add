"""Sizes in bytes as people write them."""

from fasttrain.base.errors import ConfigError

_UNITS = {"": 1, "KB": 1000, "KIB": 1 << 10, "MB": 10**6, "MIB": 1 << 20, "GB": 10**9, "GIB": 1 << 30}
_UNITS |= {"TB": 10**12, "TIB": 1 << 40}


def parse_size(text: str) -> int:
    """``256MiB`` or ``1GB`` -> bytes.

    Raises:
        ConfigError: it is none.
    """
    digits = text.strip().rstrip("kKmMgGtTiIbB ")
    unit = text.strip()[len(digits) :].strip().upper()
    if not digits.isdigit() or int(digits) < 1 or unit not in _UNITS:
        raise ConfigError(f"{text!r} is not a size such as 256MiB or 1GB")
    return int(digits) * _UNITS[unit]


def format_size(size: int) -> str:
    """Bytes -> ``1.3 GB``."""
    for unit in ("TB", "GB", "MB", "KB"):
        if size >= _UNITS[unit]:
            value = size / _UNITS[unit]
            return f"{value:,.1f} {unit}" if value < 100 else f"{value:,.0f} {unit}"
    return f"{size} bytes"
