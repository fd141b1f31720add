"""``python cli.py …`` from a checkout is the ``fasttrain`` command."""

import sys
from pathlib import Path

# The checkout's folders (``kernels``, ``data``) must not shadow installed packages of the same name.
_HERE = Path(__file__).resolve().parent
sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != _HERE]

from fasttrain.cli.app import main  # noqa: E402

if __name__ == "__main__":
    main()
