"""How fast photos are decoded is measured as said: on photos such as ImageNet's, both sides on all of them."""

import io
import os

import numpy as np
import torch
from PIL import Image

from icbench.bench import decode
from icbench.bench.decode import measure


def test_photos_are_about_as_large_as_imagenets() -> None:
    photo = decode._photo(np.random.default_rng(0))
    assert 80_000 < len(photo) < 120_000
    with Image.open(io.BytesIO(photo)) as image:
        assert image.size == (500, 375)


def test_both_are_measured_and_nothing_stays_bound() -> None:
    before = torch.get_num_threads(), os.sched_getaffinity(0)
    told: list[str] = []
    (alone,) = measure(24, batch_size=8, rounds=2, numbers_of_cores=[1], tell=told.append)
    assert alone.cores == 1
    assert len(alone.peer) == len(alone.ours) == 2
    assert all(1 < rate < 1e4 for rate in (*alone.peer, *alone.ours))
    assert told[0] == "making 24 photos"
    assert (torch.get_num_threads(), os.sched_getaffinity(0)) == before
