"""What the benchmarks compare, one module a contestant.

Of loading, a function takes a `LoaderJob` and yields image batches, (B, 3, size, size); by ``map``, which keeps no
batch alive while the next one is made, as a loop's variable would. Of training, it takes a `TrainJob` and a `Watch`,
which it tells of epochs, steps and validations, and returns the trained model.
"""
