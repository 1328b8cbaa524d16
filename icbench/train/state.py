"""All that a training is at a moment: the network, the optimiser, the position, the random state, the rows so far.

A checkpoint holds exactly this, so that a training that goes on from one gives the same bits as one never stopped.
"""

import hashlib
import io
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from icbench import catalog
from icbench.config import RunConfig
from icbench.files import remove_leftovers, write_whole
from icbench.nets.build import build
from icbench.train import parameters, seeds


@dataclass(frozen=True)
class EpochRow:
    """One epoch, counted from 1. Losses are mean cross-entropies in nats; accuracies are fractions.

    The training figures are those of the batches as they were trained on (augmented, dropout on, weights moving); the
    test figures are those after the epoch. seconds: of training alone, without the evaluation.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    seconds: float


@dataclass
class State:
    """`epoch` is the one under way or next, from 1; `step` how many of its batches are done; `sums` over these:
    the loss summed over images, and the correct answers. `seconds`: what this epoch took so far.
    """

    net: torch.nn.Module
    optimizer: torch.optim.Optimizer
    sums: torch.Tensor
    epoch: int = 1
    step: int = 0
    seconds: float = 0.0
    rows: list[EpochRow] = field(default_factory=list)

    @classmethod
    def fresh(cls, config: RunConfig, device: torch.device) -> "State":
        """The state before the first step. Sets torch's global generator, which dropout draws from."""
        recipe = config.recipe
        torch.manual_seed(seeds.derive(config.seed, "initialization"))
        net = build(config).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = catalog.load("optimizers", recipe.optimizer.name).build(
            parameters.groups(net, recipe.weight_decay), recipe.learning_rate, **dict(recipe.optimizer.options)
        )
        torch.manual_seed(seeds.derive(config.seed, "dropout"))
        return cls(net, optimizer, torch.zeros(2, dtype=torch.float64, device=device))

    def end_epoch(self, row: EpochRow) -> None:
        self.rows.append(row)
        self.epoch += 1
        self.step = 0
        self.seconds = 0.0
        self.sums.zero_()

    def save(self, file: Path) -> None:
        """Write a checkpoint, whole or not at all: the SHA-256 of the rest, then what `torch.save` makes of it."""
        content = {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sums": self.sums,
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "rows": [asdict(row) for row in self.rows],
            "cpu_random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state() if self.sums.is_cuda else None,
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        data = buffer.getbuffer()
        # Not durable: the digest tells a checkpoint that a power cut has damaged, and the run begins anew.
        write_whole(file, lambda f: (f.write(hashlib.sha256(data).digest()), f.write(data)), durable=False)

    def restore(self, file: Path) -> bool:
        """Take over a checkpoint. False, and the state is as before, where there is none or a damaged one."""
        remove_leftovers(file)
        if not file.exists():
            return False
        data = file.read_bytes()
        if hashlib.sha256(data[32:]).digest() != data[:32]:
            return False
        content: dict[str, Any] = torch.load(io.BytesIO(data[32:]), map_location="cpu", weights_only=True)
        self.net.load_state_dict(content["net"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.sums.copy_(content["sums"])
        self.epoch, self.step, self.seconds = content["epoch"], content["step"], content["seconds"]
        self.rows = [EpochRow(**row) for row in content["rows"]]
        torch.set_rng_state(content["cpu_random"])
        if self.sums.is_cuda and content["cuda_random"] is not None:
            torch.cuda.set_rng_state(content["cuda_random"])
        return True
