import multiprocessing
import signal
import time

import numpy as np
import pytest
import torch
import xarray as xr

from pm_neural.fitting.checkpoint import load_checkpoint
from pm_neural.training import RBM, EarlyStopping
from pm_neural.training.restricted.learner import RBMLearner

EPOCHS = 12


def fit(X, checkpoint=None, **options) -> tuple[RBM, xr.Dataset]:
    rbm = RBM(X.shape[1], 8)
    arguments = {"epochs": EPOCHS, "progressbar": False, "random_seed": 3, **options}
    return rbm, rbm.fit(X, checkpoint=checkpoint, **arguments)


class Interrupted(Exception):
    pass


def fit_until(n_epochs: int, X, checkpoint, monkeypatch, **options) -> None:
    """Train, and fail in the epoch after `n_epochs`, before it is counted."""
    original = RBMLearner.train_epoch

    def train_epoch(self, epoch):
        original(self, epoch)
        if epoch == n_epochs:
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(RBMLearner, "train_epoch", train_epoch)
        with pytest.raises(Interrupted):
            fit(X, checkpoint, **options)


def assert_same(one: tuple[RBM, xr.Dataset], other: tuple[RBM, xr.Dataset]) -> None:
    for x, y in zip(one[0].parameters_as_numpy(), other[0].parameters_as_numpy(), strict=True):
        np.testing.assert_array_equal(x, y)
    xr.testing.assert_identical(one[1].drop_vars("seconds").drop_attrs(), other[1].drop_vars("seconds").drop_attrs())


SETTINGS = {
    "pcd": {},
    "cd": {"method": "cd"},
    "pt": {"method": "pt", "k": 2},
    "momentum": {"momentum": 0.9, "learning_rate": 0.02},
    "adam": {"optimizer": torch.optim.Adam},
    "rmsprop": {"optimizer": torch.optim.RMSprop},
    "sparse": {"sparsity_target": 0.1, "centered": False},
    "mersenne": {"random_seed": None},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_resumed_training_is_bit_identical(stripes, tmp_path, monkeypatch, name):
    options = dict(SETTINGS[name])

    def seeded():
        if name == "mersenne":
            options["random_seed"] = np.random.Generator(np.random.MT19937(4))
        return options

    path = tmp_path / "rbm.safetensors"
    common = {"batch_size": 7, "validation_data": stripes[:9], "measure_every": 2}
    whole = fit(stripes, **common, **seeded())
    fit_until(7, stripes, path, monkeypatch, checkpoint_every=3, **common, **seeded())
    assert load_checkpoint(path, kind="RBM")["epoch"] == 6
    resumed = fit(stripes, path, resume=True, checkpoint_every=3, **common, **seeded())
    assert_same(resumed, whole)
    assert load_checkpoint(path, kind="RBM")["epoch"] == EPOCHS


def test_the_seed_of_a_resumed_run_does_not_matter(stripes, tmp_path, monkeypatch):
    path = tmp_path / "rbm.safetensors"
    whole = fit(stripes)
    fit_until(5, stripes, path, monkeypatch, checkpoint_every=1)
    assert_same(fit(stripes, path, resume=True, random_seed=99), whole)


def test_early_stopping_is_resumed(stripes, tmp_path, monkeypatch):
    path = tmp_path / "rbm.safetensors"
    options = {
        "epochs": 400,
        "validation_data": stripes[::3],
        "measure_every": 2,
        "early_stopping": EarlyStopping(tolerance=0.5, patience=4),
        "weight_decay": 0.0,
    }
    train = np.delete(stripes, np.s_[::3], axis=0)
    whole = fit(train, **options)
    stop = int(whole[1]["epoch"][-1])
    assert stop < 400
    # within patience: what is restored comes from the file
    fit_until(stop - 3, train, path, monkeypatch, checkpoint_every=1, **options)
    assert_same(fit(train, path, resume=True, **options), whole)
    assert_same(fit(train, path, resume=True, **options), whole)  # stopped: nothing left to do


def test_resume_starts_anew_where_there_is_no_checkpoint(stripes, tmp_path):
    path = tmp_path / "rbm.safetensors"
    assert_same(fit(stripes, path, resume=True), fit(stripes))
    assert path.exists()


def test_without_resume_a_checkpoint_is_replaced(stripes, tmp_path):
    path = tmp_path / "rbm.safetensors"
    fit(stripes, path, random_seed=1)
    assert_same(fit(stripes, path, random_seed=2), fit(stripes, random_seed=2))


def test_numpy_scalars_as_arguments_can_be_saved(stripes, tmp_path):
    options = {"weight_decay": np.float32(1e-3), "centered": np.True_, "k": np.int64(1)}
    path = tmp_path / "rbm.safetensors"
    assert_same(fit(stripes, path, **options), fit(stripes, path, resume=True, **options))


def test_from_checkpoint(stripes, tmp_path):
    path = tmp_path / "rbm.safetensors"
    rbm, _ = fit(stripes, path)
    loaded = RBM.from_checkpoint(path)
    for x, y in zip(rbm.parameters_as_numpy(), loaded.parameters_as_numpy(), strict=True):
        np.testing.assert_array_equal(x, y, strict=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.07}, "learning_rate is 0.07, and was 0.2"),
        ({"epochs": 13}, "epochs is 13, and was 12"),
        ({"method": "cd"}, "method is 'cd', and was 'pcd'"),
        ({"n_chains": 11}, "n_chains is 11, and was 10"),
        ({"centered": False}, "centered is False, and was True"),
        ({"optimizer": torch.optim.Adam}, "optimizer is 'Adam', and was 'sgd'"),
        ({"measure_every": 5}, "measure_every is 5, and was 1"),
    ],
)
def test_other_arguments_are_refused(stripes, tmp_path, change, message):
    path = tmp_path / "rbm.safetensors"
    fit(stripes, path, centered=True, learning_rate=0.2)
    options = {"centered": True, "learning_rate": 0.2, **change}
    with pytest.raises(ValueError, match=f"resume=True needs the arguments .*: {message}"):
        fit(stripes, path, resume=True, **options)


def test_other_data_and_models_are_refused(stripes, tmp_path):
    path = tmp_path / "rbm.safetensors"
    fit(stripes, path)
    with pytest.raises(ValueError, match="data is"):
        fit(stripes[::-1].copy(), path, resume=True)
    with pytest.raises(ValueError, match="n_hidden is 5, and was 8"):
        RBM(16, 5).fit(stripes, epochs=EPOCHS, checkpoint=path, resume=True, progressbar=False)
    with pytest.raises(ValueError, match=r"dtype is 'torch.float64', and was 'torch.float32'"):
        RBM(16, 8, dtype=torch.float64).fit(stripes, epochs=EPOCHS, checkpoint=path, resume=True, progressbar=False)


def test_a_checkpoint_cut_short_is_refused(stripes, tmp_path):
    path = tmp_path / "rbm.safetensors"
    fit(stripes, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cut short"):
        fit(stripes, path, resume=True)
    with pytest.raises(ValueError, match="cut short"):
        RBM.from_checkpoint(path)


def _train_600_epochs(X, path) -> None:
    fit(X, path, epochs=600, checkpoint_every=1, resume=True)


def test_kill_9_in_the_middle_costs_nothing(stripes, tmp_path):
    """Killed at odd moments and resumed each time, training gives the uninterrupted result."""
    path = tmp_path / "rbm.safetensors"
    fork = multiprocessing.get_context("fork")
    reached = 0
    for _ in range(5):
        process = fork.Process(target=_train_600_epochs, args=(stripes, path))
        process.start()
        _wait_for_progress(process, path, beyond=reached + 20)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        reached = load_checkpoint(path, kind="RBM")["epoch"]
        assert reached < 600, "training was over before the kill"
    resumed = fit(stripes, path, epochs=600, checkpoint_every=1, resume=True)
    assert_same(resumed, fit(stripes, epochs=600))


def _wait_for_progress(process, path, beyond: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.is_alive(), "training ended by itself"
        if path.exists() and load_checkpoint(path, kind="RBM")["epoch"] > beyond:
            return
        time.sleep(0.001)
    raise AssertionError("no progress within a minute")
