"""Settings of whole runs, as ``fasttrain train --config NAME`` takes them."""
