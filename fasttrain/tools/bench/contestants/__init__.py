"""One loader each: a function takes a `LoaderJob` and yields image batches, (B, 3, size, size).

They yield by ``map``, which keeps no batch alive while the next one is made, as a loop's variable would.
"""
