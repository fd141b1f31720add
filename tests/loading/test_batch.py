import torch

from fasttrain.loading.batch import Batch, all_views, first_view, split_batch


def test_parts_hold_all_views_of_their_samples():
    images, labels = torch.randn(3, 5, 3, 2, 2), torch.arange(5)
    batch = Batch(images, labels, labels + 10, labels > 1)
    parts = split_batch(batch, 2)
    assert [len(part.labels) for part in parts] == [2, 2, 1]
    assert torch.equal(torch.cat([part.images for part in parts], 1), images)
    for place in (1, 2, 3):
        assert torch.equal(torch.cat([part[place] for part in parts]), batch[place])
    assert torch.equal(all_views(images), torch.cat(list(images))) and torch.equal(first_view(images), images[0])
    alone = images[0]
    single = batch._replace(images=alone)
    assert torch.equal(torch.cat([part.images for part in split_batch(single, 3)]), alone)
    assert all_views(alone) is alone and first_view(alone) is alone
