"""All that a training is at a moment: the network, the optimiser, the position, the random state, the rows so far.

A checkpoint holds exactly this, so that a training that goes on from one gives the same bits as one never stopped.
"""

import hashlib
import io
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from icbench import catalog
from icbench.config import RunConfig
from icbench.files import remove_leftovers, write_whole
from icbench.nets.build import build
from icbench.nets.in_place import work_in_place
from icbench.train import numerics, parameters, seeds
from icbench.train.ranks import ALONE, Ranks

# Part of every checkpoint's digest: one that another version of icbench laid out otherwise counts as damaged.
_FORMAT = b"icbench checkpoint 5"


@dataclass(frozen=True)
class EpochRow:
    """One epoch, counted from 1. Losses are mean cross-entropies in nats; accuracies are fractions.

    The training figures are those of the batches as they were trained on (augmented, dropout on, weights moving); the
    test figures are those after the epoch. seconds: of training alone, without the evaluation. test_top5_accuracy: see
    Evaluation.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    seconds: float
    test_top5_accuracy: float | None


@dataclass
class State:
    """`epoch` is the one under way or next, from 1; `step` how many of its batches are done; `sums` over these, or this
    rank's shares of them: the loss summed over images, and the correct answers. `seconds`: what this epoch took so far.
    `correct`: (test images,) uint8, 1 for each that the net got right after the last epoch.
    """

    net: torch.nn.Module
    optimizer: torch.optim.Optimizer
    sums: torch.Tensor
    epoch: int = 1
    step: int = 0
    seconds: float = 0.0
    rows: list[EpochRow] = field(default_factory=list)
    correct: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.uint8))

    @classmethod
    def fresh(cls, config: RunConfig, device: torch.device, rank: int = 0, *, in_place: bool = True) -> "State":
        """A rank's state before the first step. Sets torch's global generator, which dropout draws from.

        in_place: the net's layers may overwrite what others gave them, so that not all can be seen afterwards.
        """
        recipe = config.recipe
        torch.manual_seed(seeds.derive(config.seed, "initialization"))
        net = build(config)
        if in_place:
            work_in_place(net)
        net.to(device, numerics.dtype(config.precision), memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = catalog.load("optimizers", recipe.optimizer.name).build(
            parameters.groups(net, recipe.weight_decay), recipe.learning_rate, **dict(recipe.optimizer.options)
        )
        torch.manual_seed(seeds.derive(config.seed, "dropout", *([rank] if rank else [])))
        return cls(net, optimizer, torch.zeros(2, dtype=torch.float64, device=device))

    def take(self, other: "State") -> None:
        """Become a copy of another state of the same configuration, whose net may work in place."""
        self.net.load_state_dict(other.net.state_dict())
        self._take_optimizer(deepcopy(other.optimizer.state_dict()["state"]))
        self.epoch, self.step, self.seconds = other.epoch, other.step, other.seconds
        self.rows, self.correct = list(other.rows), other.correct
        self.sums.copy_(other.sums)

    def _take_optimizer(self, state: dict[Any, Any]) -> None:
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})

    def end_epoch(self, row: EpochRow, correct: torch.Tensor) -> None:
        self.rows.append(row)
        self.correct = correct
        self.epoch += 1
        self.step = 0
        self.seconds = 0.0
        self.sums.zero_()

    def save(self, file: Path, ranks: Ranks = ALONE, *, durable: bool = False) -> None:
        """Have the first rank write a checkpoint of all, whole or not at all: a SHA-256, then what it is of.

        One that is not `durable` a crash of the machine may damage; the digest tells, and the run begins anew.
        """
        content = {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict()["state"],  # its groups follow from the configuration
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "rows": [asdict(row) for row in self.rows],
            "correct": self.correct,
            "sums": ranks.gather(self.sums),
            "cpu_random": ranks.gather(torch.get_rng_state()),
            "cuda_random": ranks.gather(torch.cuda.get_rng_state()) if self.sums.is_cuda else None,
        }
        if ranks.rank == 0:
            buffer = io.BytesIO()
            torch.save(content, buffer)
            data = buffer.getbuffer()
            write_whole(file, lambda f: (f.write(_digest(data)), f.write(data)), durable=durable)
        ranks.agree(False)  # the others wait until it is there

    def restore(self, stored: bytes | None, seed: int, ranks: Ranks = ALONE) -> bool:
        """Take over what `read_checkpoint` read. False, and the state is as before, where that is none or damaged."""
        if stored is None or _digest(memoryview(stored)[32:]) != stored[:32]:
            return False
        content: dict[str, Any] = torch.load(io.BytesIO(stored[32:]), map_location="cpu", weights_only=True)
        self.net.load_state_dict(content["net"])
        self._take_optimizer(content["optimizer"])
        self.epoch, self.step, self.seconds = content["epoch"], content["step"], content["seconds"]
        self.rows = [EpochRow(**row) for row in content["rows"]]
        self.correct = content["correct"]
        self._restore_share(content, seed, ranks)
        return True

    def _restore_share(self, content: dict[str, Any], seed: int, ranks: Ranks) -> None:
        """Take over the sums and random states; by another number of ranks, the first takes all sums over."""
        rank, size = ranks.rank, len(content["sums"])
        if size == ranks.size:
            self.sums.copy_(content["sums"][rank])
        elif rank == 0:
            self.sums.copy_(content["sums"].sum(0))
        if rank >= size:
            torch.manual_seed(seeds.derive(seed, "dropout", rank, self.epoch, self.step))
            return
        # Clones: torch crashes on states that are not aligned in memory as a tensor of their own is.
        torch.set_rng_state(content["cpu_random"][rank].clone())
        if self.sums.is_cuda and content["cuda_random"] is not None:
            torch.cuda.set_rng_state(content["cuda_random"][rank].clone())


def read_checkpoint(file: Path, ranks: Ranks = ALONE) -> bytes | None:
    """The checkpoint as the first rank finds it, for all ranks; None where there is none."""
    if ranks.rank > 0:
        return ranks.broadcast(None)
    remove_leftovers(file)
    return ranks.broadcast(file.read_bytes() if file.exists() else None)


def _digest(data: memoryview) -> bytes:
    return hashlib.sha256(_FORMAT + data).digest()
