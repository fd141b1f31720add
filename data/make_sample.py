"""Write the demo's sample images into a folder: ``python data/make_sample.py FOLDER [SEED]``."""

import sys

from fasttrain.tools.sample_data import SampleSettings, make_sample

if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    sample = make_sample(sys.argv[1], SampleSettings(seed=int(sys.argv[2]) if len(sys.argv) == 3 else 0))
    print(f"{sample.train}: {sample.train_counts.sum()} images\n{sample.test}: {sample.test_counts.sum()} images")
    print(sample.settings.describe_shift())
