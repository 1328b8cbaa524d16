"""The ranks that train one run together, each with a share of every batch. Most runs have one, alone.

Gradients are summed over the ranks at once when a backward pass has ended, in one buffer of fixed layout. torch's
DistributedDataParallel lays its buckets out anew after its first step, by which the sums of three ranks or more are
rounded otherwise: a training that goes on from a checkpoint would not have the bits of one never stopped.
"""

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from icbench.files import read_json, write_json
from icbench.nets.syncbatchnorm import SyncBatchNorm

_LOOK_SECONDS = 0.05
_CONNECT_SECONDS = 10.0
# What gloo, whose errors have no class of their own, says of a connection that is lost, and of no other mistake.
_LOST = re.compile(r"gloo/transport|connectFullMesh|Connection (closed|reset|refused)|Timed out waiting", re.IGNORECASE)


class PeerLost(Exception):
    """Another rank of this run has died or left, or does not answer: this one cannot go on either."""


class Ranks:
    """Those who train a run. This class itself is a rank alone, to which every operation is trivial."""

    rank = 0
    size = 1

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Leave the group; all ranks do."""

    def share(self, start: int, stop: int) -> tuple[int, int]:
        """The rows of start..stop that are this rank's: contiguous, and of the odd ones one to each earlier rank."""
        each, odd = divmod(stop - start, self.size)
        first = start + self.rank * each + min(self.rank, odd)
        return first, first + each + (self.rank < odd)

    def attach(self, net: nn.Module) -> None:
        """Have the ranks train `net`, from the first rank's weights on."""

    def add_up_gradients(self) -> None:
        """Make every rank's gradients the sums of all ranks'."""

    def spread_statistics(self, net: nn.Module) -> None:
        """Give all ranks the first one's running statistics."""

    def agree(self, *wishes: bool) -> tuple[bool, ...]:
        """Of each wish, whether any rank has it: all ranks hear the same."""
        return wishes

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of every rank's tensor, the same on all."""
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        """(size, *shape): every rank's tensor, the same on all."""
        return tensor[None]

    def broadcast(self, data: bytes | None) -> bytes | None:
        """What the first rank gives."""
        return data

    def first_alone(self, work: Callable[[], None]) -> None:
        """The first rank does `work`, in which it calls none of these, while the others wait, however long it takes."""
        work()


ALONE = Ranks()


def join(
    rank: int, size: int, rendezvous: Path, device: torch.device, timeout_seconds: float, *, host: str = ""
) -> Ranks:
    """Meet the other ranks; leave them with the `with` statement that this is for. Raises PeerLost.

    The first rank listens on a free port and writes `host` (default: its own name), which the others must be able to
    reach, and the port into the file `rendezvous`. What an earlier first rank has left there is tried in vain.
    A rank that says nothing for `timeout_seconds`, here or later, is lost.
    """
    if size == 1:
        return ALONE
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
    with _peers():
        store = _store(rank, rendezvous, timeout_seconds, host or socket.gethostname())
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=timeout_seconds),
            device_id=device if device.type == "cuda" else None,
        )
    return _Joined(rank, size, device, store)


def _store(rank: int, rendezvous: Path, timeout_seconds: float, host: str) -> TCPStore:
    """Where the ranks tell each other their addresses."""
    timeout = timedelta(seconds=timeout_seconds)
    if rank == 0:
        store = TCPStore(host, 0, is_master=True, timeout=timeout, wait_for_workers=False)
        write_json(rendezvous, {"host": host, "port": store.port})
        return store
    until = time.monotonic() + timeout_seconds
    attempt = timedelta(seconds=min(timeout_seconds, _CONNECT_SECONDS))
    while time.monotonic() < until:
        if address := read_json(rendezvous):
            with suppress(RuntimeError):  # nobody listens there any more: look again what is written
                store = TCPStore(
                    address["host"], address["port"], is_master=False, timeout=attempt, wait_for_workers=False
                )
                store.set_timeout(timeout)
                return store
        time.sleep(_LOOK_SECONDS)
    raise PeerLost(f"the first rank was not found by {rendezvous} for {timeout_seconds:g} seconds")


class _Joined(Ranks):
    """A rank of torch's default process group: gloo for tensors on the CPU, NCCL for those on GPUs."""

    def __init__(self, rank: int, size: int, device: torch.device, store: TCPStore):
        self.rank = rank
        self.size = size
        self._device = device
        self._store: TCPStore | None = store
        self._turns = 0
        self._parameters: list[Tensor] = []
        self._flat = torch.empty(0)
        self._views: list[Tensor] = []

    def __exit__(self, kind: object, *_: object) -> None:
        self._store = None  # the first rank's listens until nothing holds it
        if kind is None or self._device.type != "cuda":
            dist.destroy_process_group()
            return
        with suppress(RuntimeError):  # what is on its way out says more
            dist.distributed_c10d._abort_process_group()  # NCCL would wait for ranks that do not come any more

    def attach(self, net: nn.Module) -> None:
        self._parameters = list(net.parameters())
        self._flat = self._parameters[0].new_empty(sum(parameter.numel() for parameter in self._parameters))
        self._views = []
        offset = 0
        for parameter in self._parameters:  # in its own layout in memory, so that copies need no rearrangement
            self._views.append(self._flat.as_strided(parameter.shape, parameter.stride(), offset))
            offset += parameter.numel()
        with torch.no_grad():
            torch._foreach_copy_(self._views, self._parameters)
            self._send(self._flat)
            torch._foreach_copy_(self._parameters, self._views)
        self.spread_statistics(net)
        for module in net.modules():
            if isinstance(module, SyncBatchNorm):
                module.peers = self

    def add_up_gradients(self) -> None:
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        torch._foreach_copy_(self._views, gradients)
        self._add_up(self._flat)
        for parameter, view in zip(self._parameters, self._views, strict=True):
            parameter.grad = view

    def spread_statistics(self, net: nn.Module) -> None:
        for buffer in net.buffers():
            self._send(buffer)

    def agree(self, *wishes: bool) -> tuple[bool, ...]:
        flags = torch.tensor(wishes, dtype=torch.uint8)
        with _peers():
            dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        return tuple(map(bool, flags.tolist()))

    def total(self, tensor: Tensor) -> Tensor:
        return self._add_up(tensor.clone())

    def gather(self, tensor: Tensor) -> Tensor:
        gathered = tensor.new_empty((self.size, *tensor.shape))
        with _peers():
            dist.all_gather(list(gathered.unbind()), tensor.contiguous())
        return gathered

    def broadcast(self, data: bytes | None) -> bytes | None:
        length = self._send(torch.tensor(-1 if data is None else len(data))).item()
        if length <= 0:
            return b"" if length == 0 else None
        return self._send(torch.frombuffer(bytearray(data or int(length)), dtype=torch.uint8)).numpy().tobytes()

    def first_alone(self, work: Callable[[], None]) -> None:
        # By the store, which the first rank's process answers for whatever it does: a collective has a time limit.
        assert self._store is not None
        self._turns += 1
        done = f"turn {self._turns}"
        if self.rank == 0:
            try:
                work()
            finally:
                self._store.set(done, "")
        else:
            with _peers():
                while not self._store.check([done]):
                    time.sleep(_LOOK_SECONDS)
        self.agree(False)  # the first rank, with whom the store goes, may leave as soon as all know

    def _add_up(self, tensor: Tensor) -> Tensor:
        with _peers():
            dist.all_reduce(tensor)
        return tensor

    def _send(self, tensor: Tensor) -> Tensor:
        """Overwrite the tensor, on all ranks, with the first one's."""
        with _peers():
            dist.broadcast(tensor, src=0)
        return tensor


@contextmanager
def _peers() -> Iterator[None]:
    """Raise PeerLost in place of what torch raises when a connection is closed or a time is over."""
    try:
        yield
    except RuntimeError as error:
        out_of_memory = "out of memory" in str(error)
        if (isinstance(error, dist.DistError) and not out_of_memory) or _LOST.search(str(error)):
            raise PeerLost(f"another rank of this run is lost: {str(error).splitlines()[0]}") from error
        raise
