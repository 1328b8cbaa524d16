"""What a worker records of a run beyond its curve: what probes measure, and checkpoints to keep."""

import hashlib
import json
import math
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from icbench import catalog, kinds
from icbench.config import RunConfig, Variant
from icbench.data.source import Source
from icbench.failure import in_words
from icbench.files import read_json, write_json
from icbench.layout import Layout, RunFiles
from icbench.probing.measurement import Measurement
from icbench.probing.subject import Subject, undisturbed
from icbench.recording import Recording
from icbench.results import PROBES, write_probes
from icbench.train.evaluation import Stopped
from icbench.train.ranks import Ranks
from icbench.train.state import State


class Recorder:
    """Observes one training; see `observe` of train/loop.py. All ranks have one, and the first one does the work.

    kept: the folder for checkpoints. should_stop: asked between probes; the training then raises Stopped. say: for the
    run's log. failed: hears which probe failed, after which epoch and why; the run goes on without its measurements.
    """

    def __init__(
        self,
        recording: Recording,
        config: RunConfig,
        data: Source,
        ranks: Ranks,
        files: RunFiles,
        kept: Path,
        should_stop: Callable[[], bool],
        say: Callable[[str], None],
        failed: Callable[[str, int, str], None],
        images_at_once: int | None = None,
    ):
        self._recording, self._config, self._data, self._ranks = recording, config, data, ranks
        self._files, self._kept = files, kept
        self._should_stop, self._say, self._failed = should_stop, say, failed
        self._at_once = at_once(config, ranks.size, images_at_once)

    def __call__(self, state: State) -> None:
        epoch, last = state.epoch - 1, self._config.recipe.epochs
        if epoch == 0 and self._ranks.rank == 0:
            self._forget()
        if epoch and self._recording.keep.hold(epoch, last) and self._ranks.rank == 0:
            _keep(self._files.checkpoint, kept_file(self._kept, epoch))
        for probe in self._recording.due(epoch, last):
            if any(self._ranks.agree(self._should_stop())):
                raise Stopped  # what was measured and the checkpoint are stored
            self._ranks.first_alone(partial(self._measure, probe, state, epoch))

    def _forget(self) -> None:
        """The training begins anew: what an earlier one of this run left is not its own, but for what was measured
        before the first step. That follows from the configuration, and may be what this one was interrupted at.
        """
        for file in self._files.probes.glob("[1-9]*.json"):
            file.unlink(missing_ok=True)
        shutil.rmtree(self._kept, ignore_errors=True)

    def _measure(self, probe: Variant, state: State, epoch: int) -> None:
        """Measure and store, unless that was done before this training was interrupted."""
        file = self._file(epoch, probe)
        if file.exists():
            return
        began = time.perf_counter()
        try:
            rows = measure(probe, self._config, self._data, state, self._at_once)
        except OSError as error:
            if error.errno in kinds.DISK_ERRORS:
                raise
            rows = self._without(probe, epoch, error)
        except Exception as error:
            rows = self._without(probe, epoch, error)
        else:
            self._say(f"the probe {probe.name} took {time.perf_counter() - began:.2f} s after epoch {epoch}")
        self._files.probes.mkdir(exist_ok=True)
        write_json(file, rows, durable=False)

    def _without(self, probe: Variant, epoch: int, error: Exception) -> list[dict[str, Any]]:
        self._say(f"the probe {probe.name} failed after epoch {epoch}, and the training goes on:")
        self._say(traceback.format_exc())
        self._failed(probe.name, epoch, in_words(error))
        if self._data.device.type == "cuda":
            torch.cuda.empty_cache()
        return []

    def write(self, layout: Layout, run_id: str) -> None:
        """Put what was measured into the run's file of the probes table; nothing was, no file."""
        rows = [row for epoch, probe in self._due() for row in read_json(self._file(epoch, probe)) or ()]
        if rows:
            write_probes(layout, run_id, rows)
        else:
            layout.row(PROBES, run_id).unlink(missing_ok=True)  # of an earlier training, whose row is gone

    def _due(self) -> Iterator[tuple[int, Variant]]:
        last = self._config.recipe.epochs
        return ((epoch, probe) for epoch in range(last + 1) for probe in self._recording.due(epoch, last))

    def _file(self, epoch: int, probe: Variant) -> Path:
        """Of these very options: the grid may have been edited since the training was interrupted."""
        options = hashlib.sha256(options_json(probe).encode()).hexdigest()[:8]
        return self._files.probes / f"{epoch}-{probe.name}-{options}.json"


def at_once(config: RunConfig, ranks: int, parts: int | None) -> int | None:
    """How many images of a batch go through the net at once where so many ranks share it, each in `parts` of so many at
    most; None: all.
    """
    share = -(-config.recipe.batch_size // ranks)
    most = min(share, parts or share)
    return most if most < config.recipe.batch_size else None


def measure(
    probe: Variant, config: RunConfig, data: Source, state: State, images_at_once: int | None
) -> list[dict[str, Any]]:
    """What a probe finds in a training at the end of an epoch, as rows of the probes table without the run's id.

    The training's state and torch's random generators are left as they are. Values that are not finite are left out.
    """
    look = catalog.load("probes", probe.name).build(**dict(probe.options))
    with undisturbed(data.device):
        subject = Subject(config, data, state, probe.name, images_at_once)
        return [_row(probe, subject.epoch, each) for each in look(subject) if math.isfinite(each.value)]


def _row(probe: Variant, epoch: int, found: Measurement) -> dict[str, Any]:
    error = found.standard_error
    return {
        "epoch": epoch,
        "layer": found.layer,
        "probe": probe.name,
        "statistic": found.statistic,
        "value": float(found.value),
        "standard_error": float(error) if error is not None and math.isfinite(error) else None,
        "n": found.n,
        "options": options_json(probe),
    }


def options_json(probe: Variant) -> str:
    return json.dumps(dict(probe.options))


def kept_file(folder: Path, epoch: int) -> Path:
    """Where a run's checkpoint after an epoch is kept, among all of its that are."""
    return folder / f"{epoch}.pt"


def _keep(checkpoint: Path, kept: Path) -> None:
    """Keep a checkpoint as it is now, whole or not at all: checkpoints are replaced, never overwritten."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    if kept.exists():
        return
    with suppress(OSError):  # a file system without links
        os.link(checkpoint, kept)
        return
    shutil.copyfile(checkpoint, hidden := kept.with_name(f".{kept.name}"))
    hidden.replace(kept)
