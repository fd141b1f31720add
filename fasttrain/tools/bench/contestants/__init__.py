"""One loader each: a function takes a `LoaderJob` and yields image batches, (B, 3, size, size)."""
