"""Top-5 accuracy: what scikit-learn says, of batches, ranks and rows alike; nothing of ten classes."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import top_k_accuracy_score
from test_parallel import Pool
from test_parallel import pool as pool
from test_train import Watcher, digits

from icbench import grid
from icbench.config import RunConfig
from icbench.data.device import DeviceData
from icbench.nets.build import build
from icbench.train.evaluation import Evaluation, among_five, answered, batch_sums, evaluate
from icbench.train.loop import train
from icbench.train.ranks import ALONE, Ranks

CLASSES = 100


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    file = tmp_path / "grid.yaml"
    recipe = "{name: chen2019, epochs: 2, batch_size: 100}"
    file.write_text(f"recipe: {recipe}\nfixed: {{dataset: cifar100, depth: 8, width: 4, ordering: baseline}}")
    return grid.load(file).runs()[0][1]


def hundred(config: RunConfig, test_images: int = 230) -> DeviceData:
    """Noise in a hundred classes, in CIFAR-100's shape."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (CLASSES + test_images, 32, 32, 3), dtype=np.uint8)
    labels = random.integers(0, CLASSES, len(images))
    arrays = images[:CLASSES], labels[:CLASSES], images[CLASSES:], labels[CLASSES:]
    return DeviceData(
        arrays,
        pixel_maximum=255,
        subtract_mean=True,
        augmentation=config.recipe.augmentation,
        device=torch.device("cpu"),
    )


def expected(net: torch.nn.Module, data: DeviceData) -> float:
    images, labels = data.test_batch(0, 10**6)
    with torch.no_grad():
        logits = net.eval()(images)
    return float(top_k_accuracy_score(labels, logits, k=5, labels=range(CLASSES)))


def test_an_image_counts_if_its_class_is_among_five() -> None:
    logits = torch.tensor([[0.1 * c for c in range(CLASSES)]]).repeat(CLASSES, 1)
    assert among_five(logits, torch.arange(CLASSES)).tolist() == [False] * 95 + [True] * 5


def test_of_equal_logits_five_count() -> None:
    """As chance has it, and not all."""
    assert among_five(torch.zeros(CLASSES, CLASSES), torch.arange(CLASSES)).sum() == 5


def test_a_logit_that_is_not_a_number_is_never_right() -> None:
    """torch.topk takes it for the largest."""
    logits, labels = torch.randn(CLASSES, CLASSES), torch.arange(CLASSES)
    logits[:, :5] = logits.max() + 1
    assert among_five(logits, labels).sum() == 5
    logits[0] = math.nan
    logits[1, 1] = math.nan
    logits[2, 50] = math.nan
    assert among_five(logits, labels).nonzero().flatten().tolist() == [3, 4]
    logits[3, 3] = math.inf
    logits[4, 7] = -math.inf
    assert among_five(logits, labels).nonzero().flatten().tolist() == [4]


def test_the_largest_logit_is_right_if_it_is_a_number() -> None:
    """torch.argmax takes NaN for the largest; of equal ones the first counts, as it does there."""
    logits, labels = torch.eye(6), torch.arange(6)
    logits[0, 0] = logits[1, 2] = math.nan
    logits[2, 2] = math.inf
    logits[3, 0] = -math.inf
    logits[5, 0] = 1.0
    assert answered(logits, labels).tolist() == [False, False, False, True, True, False]
    assert batch_sums(torch.tensor(0.5), logits, labels).tolist() == [3.0, 2.0]
    tied = torch.randint(0, 3, (1000, 10)).float()
    classes = torch.randint(0, 10, (1000,))
    assert torch.equal(answered(tied, classes), tied.argmax(dim=1) == classes)


def test_a_net_that_has_diverged_is_never_right(config: RunConfig) -> None:
    net, data = build(config), hundred(config)
    torch.nn.init.constant_(next(net.parameters()), math.nan)
    found = evaluate(net, data, "float32")
    assert (found.accuracy, found.top5_accuracy, int(found.correct.sum())) == (0.0, 0.0, 0)


@pytest.mark.parametrize("batch", [1000, 100, 1])
def test_top5_is_scikit_learn_s(config: RunConfig, batch: int) -> None:
    torch.manual_seed(0)
    net, data = build(config), hundred(config)
    data.evaluation_batch = batch
    top5 = evaluate(net, data, "float32").top5_accuracy
    assert top5 == expected(net, data)
    assert 0 < top5 < 0.2


def test_ten_classes_have_none(config: RunConfig) -> None:
    small = replace(config, dataset="digits")
    assert evaluate(build(small), digits(small), "float32").top5_accuracy is None


def evaluated(ranks: Ranks, config: RunConfig, test_images: int) -> Evaluation:
    torch.manual_seed(0)
    data = hundred(config, test_images)
    data.evaluation_batch = 3
    return evaluate(build(config), data, "float32", ranks=ranks)


@pytest.mark.parametrize("test_images", [50, 1])
def test_ranks_agree_even_if_they_have_no_image(config: RunConfig, test_images: int, pool: Pool) -> None:
    alone = evaluated(ALONE, config, test_images)
    first, second = pool.run(2, evaluated, config, test_images)
    assert first.top5_accuracy == second.top5_accuracy == alone.top5_accuracy is not None


def test_rows_have_it_and_checkpoints_keep_it(config: RunConfig, tmp_path: Path) -> None:
    data = hundred(config)
    state, _ = train(config, data, tmp_path / "checkpoint.pt", Watcher())
    again, _ = train(config, data, tmp_path / "checkpoint.pt", Watcher())
    assert [row.test_top5_accuracy for row in again.rows] == [row.test_top5_accuracy for row in state.rows]
    assert state.rows[-1].test_top5_accuracy == expected(state.net, data)
    assert all(row.test_top5_accuracy >= row.test_accuracy for row in state.rows)
