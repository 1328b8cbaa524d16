"""Where the ranks of a slot meet."""

from collections.abc import Iterator
from contextlib import contextmanager

from icbench.train.ranks import ALONE, Ranks, join
from icbench.work.equipment import Equipment

# Ranks that are started at once import torch for up to some minutes on a slow file system; and so long one may be
# silent, for a step or an evaluation, before the others take it for lost.
_PATIENCE_SECONDS = 600.0


@contextmanager
def meet(equipment: Equipment) -> Iterator[Ranks]:
    """The ranks of this process's slot, together; alone, if it is one of one. Raises PeerLost."""
    assignment = equipment.assignment
    if assignment.ranks == 1:
        yield ALONE
        return
    rendezvous = equipment.submission.rendezvous(assignment.index, assignment.incarnation)
    if assignment.rank == 0:
        rendezvous.unlink(missing_ok=True)  # of a first rank that died before all had come
    with join(assignment.rank, assignment.ranks, rendezvous, equipment.device, _PATIENCE_SECONDS) as ranks:
        if assignment.rank == 0:
            # All are here. One that has to come again shall wait for the next invitation.
            rendezvous.unlink(missing_ok=True)
        yield ranks
