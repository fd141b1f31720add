"""How the processes of a job find each other, each time anew.

torchrun keeps one key-value store through all restarts of a job. What ranks leave there of an earlier life (sockets'
addresses) leads those of the next one astray: they wait for each other up to a time limit (pytorch issue 135712). No
number that torchrun passes on tells lives apart on all machines, so the ranks agree on a name for theirs first.
"""

import time
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING

from fasttrain.base.errors import LaunchError

if TYPE_CHECKING:
    from torch.distributed import Store

PATIENCE_S = 600.0
_ASK_EVERY_S = 0.02


def meet(store: "Store", rank: int, world: int, patience_s: float = PATIENCE_S) -> str:
    """Wait until all ranks are there, and agree on a name for their life together.

    Each rank says hello with a name of its own. Rank 0 answers with the list of these and the common name, and renews
    its list for as long as names change in it. A rank that finds its own name there belongs to this life, and says so.

    Args:
        store: shared by all ranks; it may hold what ranks of earlier lives have left.

    Raises:
        LaunchError: some rank did not come in time.
    """
    deadline = time.monotonic() + patience_s
    return _gather(store, world, deadline) if rank == 0 else _join(store, rank, deadline)


def _gather(store: "Store", world: int, deadline: float) -> str:
    life = uuid.uuid4().hex
    listed = None
    while True:
        hellos = [_read(store, f"meeting/hello/{rank}") for rank in range(1, world)]
        if hellos != listed:
            store.set("meeting/list", " ".join([life, *(name or "-" for name in hellos)]))
            listed = hellos
        absent = [rank for rank in range(1, world) if not store.check([f"meeting/{life}/{rank}"])]
        if not absent:
            store.set(f"meeting/{life}/0", "all")
            return life
        if time.monotonic() > deadline:
            raise LaunchError(
                f"of the {world} processes of the job {len(absent)} did not come in time (rank {absent[0]} is the "
                "first); look at their messages, and whether the machines reach each other"
            )
        time.sleep(_ASK_EVERY_S)


def _join(store: "Store", rank: int, deadline: float) -> str:
    mine = uuid.uuid4().hex
    store.set(f"meeting/hello/{rank}", mine)
    while True:
        life, *names = (_read(store, "meeting/list") or "").split(" ")
        if len(names) >= rank and names[rank - 1] == mine:
            store.set(f"meeting/{life}/{rank}", mine)
            if store.check([f"meeting/{life}/0"]):
                return life
        if time.monotonic() > deadline:
            raise LaunchError("process 0 of the job, or another one, did not come in time; look at its messages")
        time.sleep(_ASK_EVERY_S)


def _read(store: "Store", key: str) -> str | None:
    """The value of a key, None if nothing was ever written to it."""
    return store.get(key).decode() if store.check([key]) else None


def store_of_life(rank: int, world: int) -> "Store":
    """The store of the job's processes for their present life alone.

    Raises:
        LaunchError: some rank did not come in time.
    """
    from torch.distributed import PrefixStore, rendezvous

    store, _, _ = next(rendezvous("env://", rank, world, timeout=timedelta(seconds=PATIENCE_S)))
    return PrefixStore(meet(store, rank, world), store)
