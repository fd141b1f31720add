import pytest

from fasttrain.base.errors import ConfigError
from fasttrain.base.sizes import format_size, parse_size


def test_sizes_are_read_and_written():
    assert [parse_size(text) for text in ("7", "2KB", "3 MiB", "1gb", "2TiB")] == [7, 2000, 3 << 20, 10**9, 2 << 40]
    assert [format_size(size) for size in (7, 2000, 150_000_000, 1_260_000_000)] == [
        "7 bytes",
        "2.0 KB",
        "150 MB",
        "1.3 GB",
    ]
    for text in ("", "0", "GB", "3XB", "-1"):
        with pytest.raises(ConfigError, match="is not a size such as"):
            parse_size(text)
