"""What a learning curve says: how soon a run reaches a target, how steadily it trains, how well it ends.

Pure functions over arrays whose last axis is the epochs, from the first on. Accuracies are fractions. A run that ended
early, since it diverged, has NaN from there on: it reaches no target any more, and has no figure of stability.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Epochs of a running median: wide enough that a spike of two epochs does not pull it down.
_MEDIAN_EPOCHS = 9
_SPIKE_DEVIATIONS = 3.0
# The largest ratio to the fastest that a score of a performance profile looks at (Dahl et al. 2023, section 4.2).
_LARGEST_RATIO = 4.0


def epochs_to(target: ArrayLike, accuracies: ArrayLike) -> Floats:
    """(...): the first epoch, from 1, whose accuracy is at least `target`; infinity when none is: no run is dropped.

    target: (...), or one for all; NaN is reached by none. accuracies: (..., epochs).
    """
    reached = np.asarray(accuracies, dtype=float) >= np.asarray(target, dtype=float)[..., None]
    if reached.shape[-1] == 0:
        return np.full(reached.shape[:-1], np.inf)
    return np.where(reached.any(axis=-1), reached.argmax(axis=-1) + 1.0, np.inf)


def seconds_to(epochs: ArrayLike, seconds: ArrayLike) -> Floats:
    """(...): the training time until the end of epoch `epochs`; infinity for infinity.

    epochs: (...), as `epochs_to` gives them. seconds: (..., epochs), of each epoch's training without its evaluation.
    """
    reached = np.asarray(epochs, dtype=float)
    elapsed = np.cumsum(np.asarray(seconds, dtype=float), axis=-1)
    if elapsed.shape[-1] == 0:
        return np.full(reached.shape, np.inf)
    last = np.where(np.isfinite(reached), reached, 1).astype(int) - 1
    return np.where(np.isfinite(reached), np.take_along_axis(elapsed, last[..., None], axis=-1)[..., 0], np.inf)


def epochs_before_drop(learning_rates: ArrayLike) -> Integers:
    """(...): the epochs before the first at a lower learning rate than the one before it; all where it never drops.

    learning_rates: (..., epochs). A rate that rises first, in a warm-up, has not dropped.
    """
    rates = np.asarray(learning_rates, dtype=float)
    drops = rates[..., 1:] < rates[..., :-1]
    trained = np.isfinite(rates).sum(axis=-1)
    return np.where(drops.any(axis=-1), drops.argmax(axis=-1) + 1 if drops.shape[-1] else 0, trained).astype(np.int64)


def area(accuracies: ArrayLike) -> Floats:
    """(...): the area under a learning curve as its mean height: the mean accuracy over the epochs.

    accuracies: (..., epochs), up to the first drop of the learning rate. A diverged run counts with the accuracy that
    it ended with for all the epochs that it did not train. NaN without a first epoch.
    """
    y = np.asarray(accuracies, dtype=float)
    if y.shape[-1] == 0:
        return np.full(y.shape[:-1], np.nan)
    return np.asarray(carried_on(y).mean(axis=-1))


def carried_on(accuracies: Floats) -> Floats:
    """(..., epochs): the last accuracy in place of each NaN after it, as a diverged run counts."""
    positions = np.where(np.isfinite(accuracies), np.arange(accuracies.shape[-1]), 0)
    return np.take_along_axis(accuracies, np.maximum.accumulate(positions, axis=-1), axis=-1)


def detrended_deviation(accuracies: ArrayLike) -> Floats:
    """(...): the standard deviation of the accuracies about their least-squares line, n - 2 degrees of freedom.

    accuracies: (..., epochs). NaN for less than three epochs, or where one is missing.
    """
    y = np.asarray(accuracies, dtype=float)
    count = y.shape[-1]
    if count < 3:
        return np.full(y.shape[:-1], np.nan)
    x = np.arange(count) - (count - 1) / 2
    centred = y - y.mean(axis=-1, keepdims=True)
    slope = centred @ x / (x @ x)
    residuals = centred - slope[..., None] * x
    return np.asarray(np.sqrt((residuals**2).sum(axis=-1) / (count - 2)))


def maximum_drawdown(accuracies: ArrayLike) -> Floats:
    """(...): the largest fall of the accuracy below the highest before it, as a fraction of all images.

    accuracies: (..., epochs). NaN where an epoch is missing.
    """
    y = np.asarray(accuracies, dtype=float)
    if y.shape[-1] == 0:
        return np.full(y.shape[:-1], np.nan)
    return np.asarray((np.maximum.accumulate(y, axis=-1) - y).max(axis=-1))


def spike_fraction(accuracies: ArrayLike) -> Floats:
    """(...): the fraction of epochs more than 3 MAD below the running median of 9 epochs (fewer at the ends).

    accuracies: (..., epochs). MAD: the median absolute deviation from the running median, not scaled: of normal noise
    some 4.5 % lie below in 40 epochs, since the median runs through it. NaN for less than nine epochs, or where one is
    missing.
    """
    y = np.asarray(accuracies, dtype=float)
    if y.shape[-1] < _MEDIAN_EPOCHS:
        return np.full(y.shape[:-1], np.nan)
    half = _MEDIAN_EPOCHS // 2
    padded = np.pad(y, [(0, 0)] * (y.ndim - 1) + [(half, half)], constant_values=np.nan)
    # Sorted, what is missing comes last: the middle of those that are there, which is quicker than numpy.nanmedian.
    windows = np.sort(sliding_window_view(padded, _MEDIAN_EPOCHS, axis=-1), axis=-1)
    there = np.minimum(np.minimum(np.arange(y.shape[-1]), np.arange(y.shape[-1])[::-1]), half) + half + 1
    low, high = (
        np.take_along_axis(windows, np.broadcast_to(at[:, None], (*y.shape, 1)), axis=-1)[..., 0]
        for at in ((there - 1) // 2, there // 2)
    )
    deviations = y - (low + high) / 2
    typical = np.median(np.abs(deviations), axis=-1, keepdims=True)
    spikes = (deviations < -_SPIKE_DEVIATIONS * typical).mean(axis=-1)
    return np.where(np.isfinite(y).all(axis=-1), spikes, np.nan)


def performance_profile(times: ArrayLike, ratios: ArrayLike) -> Floats:
    """(contestants, len(ratios)): the fraction of workloads that each does within so many times the fastest's time.

    times: (contestants, workloads), above 0, infinite where the target is never reached. ratios: from 1 up. Of a
    workload that nobody does, all have none. Dolan and More 2002; Dahl et al. 2023 (AlgoPerf), section 4.2.
    """
    return np.asarray((_to_fastest(times)[:, :, None] <= np.asarray(ratios, dtype=float)).mean(axis=1))


def profile_score(times: ArrayLike) -> Floats:
    """(contestants,): the area under each performance profile over ratios from 1 to 4, as a fraction of the whole.

    times: as for `performance_profile`. Dahl et al. 2023 (AlgoPerf), section 4.2.
    """
    within = np.clip(_LARGEST_RATIO - _to_fastest(times), 0, None)
    return np.asarray((within / (_LARGEST_RATIO - 1)).mean(axis=1))


def _to_fastest(times: ArrayLike) -> Floats:
    t = np.asarray(times, dtype=float)
    assert t.ndim == 2
    assert t.size
    assert (t > 0).all()
    fastest = t.min(axis=0)
    return np.where(np.isfinite(t), t / np.where(np.isfinite(fastest), fastest, 1), np.inf)
