import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import HashStore

from fasttrain.base.errors import LaunchError
from fasttrain.base.meeting import meet


def meet_all(store: HashStore, world: int, seed: int) -> set[str]:
    """What the ranks, who come in a random order, call their life."""
    delays = [random.Random(seed + rank).uniform(0, 0.2) for rank in range(world)]

    def come(rank: int) -> str:
        time.sleep(delays[rank])
        return meet(store, rank, world, 20)

    with ThreadPoolExecutor(world) as pool:
        return set(pool.map(come, range(world)))


@pytest.mark.parametrize("world", [2, 3, 7])
def test_each_life_has_one_name_of_its_own(world: int) -> None:
    store = HashStore()
    lives = [meet_all(store, world, seed) for seed in range(4)]
    assert all(len(names) == 1 for names in lives)
    assert len(set.union(*lives)) == 4


def test_what_a_life_that_broke_off_has_left_does_no_harm() -> None:
    store = HashStore()
    with ThreadPoolExecutor(2) as pool:  # rank 1 never comes, so nobody gets further
        waiting = [pool.submit(meet, store, rank, 3, 0.3) for rank in (0, 2)]
    with pytest.raises(
        LaunchError, match=r"of the 3 processes of the job 1 did not come in time \(rank 1 is the first"
    ):
        waiting[0].result()
    with pytest.raises(LaunchError, match="did not come in time"):
        waiting[1].result()
    assert len(meet_all(store, 3, 0)) == 1
    assert len(meet_all(store, 2, 1)) == 1  # torchrun may go on with fewer machines


def test_ranks_wait_for_the_first() -> None:
    with pytest.raises(LaunchError, match="process 0 of the job, or another one, did not come"):
        meet(HashStore(), 1, 2, 0.1)
