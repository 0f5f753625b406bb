import functools
import tracemalloc

import numpy as np
import pytest
import threadpoolctl
import torch
import xarray as xr

import pm_neural.training.restricted.rbm as rbm_module
from pm_neural.diagnostics import enumerate_states
from pm_neural.fitting.backend import NumPyBackend, TorchBackend
from pm_neural.training import RBM, EarlyStopping, GaussianRBM


def log_likelihood(rbm: RBM, X: np.ndarray) -> float:
    """Mean exact log-likelihood; hidden states enumerated."""
    W, a, b = (p.astype(float) for p in rbm.parameters_as_numpy())
    h = enumerate_states(rbm.n_hidden)
    log_z = np.logaddexp.reduce(h @ b + np.logaddexp(0, a + h @ W.T).sum(1))
    return float((X @ a + np.logaddexp(0, b + X @ W).sum(1)).mean() - log_z)


def fit(X, n_hidden=10, rbm=None, **options) -> tuple[RBM, xr.Dataset]:
    rbm = RBM(X.shape[1], n_hidden) if rbm is None else rbm
    arguments = {"epochs": 3, "progressbar": False, "random_seed": 1, **options}
    return rbm, rbm.fit(X, **arguments)


def assert_same_parameters(one: RBM, other: RBM) -> None:
    for x, y in zip(one.parameters_as_numpy(), other.parameters_as_numpy(), strict=True):
        np.testing.assert_array_equal(x, y)


METHODS = {
    "cd": {"method": "cd", "k": 5},
    "pcd": {"method": "pcd"},
    "pt": {"method": "pt", "n_temperatures": 5},
    "uncentered": {"centered": False, "learning_rate": 0.1, "epochs": 1500},
    "momentum": {"momentum": 0.5, "learning_rate": 0.1},
    "adam": {"optimizer": torch.optim.Adam, "learning_rate": 0.01, "epochs": 1500},
}


@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)
def test_training_comes_near_the_data_distribution(stripes, options):
    """30 images, equally likely: at best -log 30 = -3.40; independent pixels -11.1."""
    rbm, _ = fit(stripes, **{"epochs": 600, "weight_decay": 1e-4, **options})
    assert log_likelihood(rbm, stripes) > -5.5


def test_training_in_float64(stripes):
    rbm = RBM(16, 10, dtype=torch.float64)
    fit(stripes, rbm=rbm, epochs=600, weight_decay=1e-4)
    assert rbm.W.dtype == torch.float64
    assert log_likelihood(rbm, stripes) > -5.2


@pytest.mark.parametrize("machine", [RBM, GaussianRBM])
def test_a_machine_with_biases_alone_learns_weights(rng, machine):
    """Without weights all hidden units are alike, and would stay so."""
    model = machine(4, 3)
    model.load_state_dict({"a": torch.tensor([0.5, -0.5, 0.0, 1.0])}, strict=False)
    model.fit(rng.integers(0, 2, (50, 4)).astype(float), epochs=1, learning_rate=1e-9, random_seed=1, progressbar=False)
    W, a, *_ = model.parameters_as_numpy()
    assert len(np.unique(W)) == 12
    np.testing.assert_allclose(a, [0.5, -0.5, 0.0, 1.0], atol=1e-6)


def test_the_visible_bias_starts_at_the_log_odds(rng):
    X = (rng.random((500, 6)) < [0.02, 0.2, 0.5, 0.5, 0.8, 1.0]).astype(float)
    rbm, _ = fit(X, n_hidden=2, epochs=1, learning_rate=1e-9)
    expected = np.log((X.sum(0) + 0.5) / ((1 - X).sum(0) + 0.5))
    np.testing.assert_allclose(rbm.parameters_as_numpy()[1], expected, rtol=1e-5)
    assert 0.005 < float(rbm.W.detach().std()) < 0.02


def test_fit_goes_on_from_present_parameters(stripes):
    rbm, _ = fit(stripes, epochs=600, weight_decay=1e-4)
    before = log_likelihood(rbm, stripes)
    fit(stripes, rbm=rbm, epochs=2, learning_rate=1e-3)
    assert abs(log_likelihood(rbm, stripes) - before) < 0.2


@pytest.mark.parametrize("method", ["cd", "pcd", "pt"])
def test_same_seed_same_parameters(stripes, method):
    (one, _), (again, _) = (fit(stripes, method=method) for _ in range(2))
    assert_same_parameters(one, again)
    other, _ = fit(stripes, method=method, random_seed=2)
    assert (one.W != other.W).any()
    generator, _ = fit(stripes, method=method, random_seed=np.random.default_rng(1))
    assert_same_parameters(one, generator)


def test_the_last_smaller_batch_is_used(stripes):
    """30 images in batches of 7: the order of the images must matter to the very last."""
    whole, _ = fit(stripes, batch_size=7)
    without, _ = fit(stripes[:28], batch_size=7)
    assert (whole.W != without.W).any()


def test_any_kind_of_array_will_do(stripes):
    reference, _ = fit(stripes)
    for X in (stripes.astype(bool), stripes.astype(np.uint8), torch.as_tensor(stripes)):
        assert_same_parameters(reference, fit(X)[0])
    assert_same_parameters(reference, _fit_list(stripes))


@pytest.mark.parametrize("kind", [np.float16, np.longdouble, torch.float16, torch.bfloat16])
def test_data_in_other_precisions_are_the_same_data(kind):
    """The sum of 3000 ones is beyond the integers of half precision."""
    X = np.ones((3000, 2))
    X[:60, 1] = 0
    other = torch.as_tensor(X).to(kind) if isinstance(kind, torch.dtype) else X.astype(kind)
    assert_same_parameters(fit(X, 2, epochs=1, batch_size=3000)[0], fit(other, 2, epochs=1, batch_size=3000)[0])


def test_weights_may_lie_in_memory_in_any_order(stripes):
    W = torch.randn(16, 10, generator=torch.Generator().manual_seed(1))
    machines = [RBM(16, 10) for _ in range(2)]
    machines[0].W.data = W
    machines[1].W.data = W.T.contiguous().T
    histories = [fit(stripes, rbm=rbm)[1] for rbm in machines]
    np.testing.assert_allclose(*[history["pseudo_log_likelihood"] for history in histories], rtol=1e-4)


def test_frozen_parameters_are_refused(stripes):
    rbm = RBM(16, 2)
    rbm.a.requires_grad_(False)
    with pytest.raises(ValueError, match="a must require a gradient to be learnt; it is frozen"):
        fit(stripes, rbm=rbm)
    assert not rbm.a.any()


def _fit_list(X):
    rbm = RBM(16, 10)
    rbm.fit(X.tolist(), epochs=3, progressbar=False, random_seed=1)
    return rbm


# ------------------------------------------------------------------------------------- history


def test_history(stripes):
    rbm, history = fit(stripes[:20], epochs=10, measure_every=4, validation_data=stripes[20:])
    assert history.sizes == {"epoch": 3}
    np.testing.assert_array_equal(history["epoch"], [4, 8, 10])
    assert set(history.data_vars) == {
        "reconstruction_error",
        "pseudo_log_likelihood",
        "weight_norm",
        "free_energy_gap",
        "seconds",
    }
    assert all(v.attrs["units"] and v.attrs["long_name"] for v in history.data_vars.values())
    train, validation = (torch.as_tensor(x).float() for x in (stripes[:20], stripes[20:]))
    last = history.isel(epoch=-1)
    expected = {
        "reconstruction_error": rbm.reconstruction_error(train).mean(),
        "pseudo_log_likelihood": rbm.pseudo_log_likelihood(train).mean(),
        "weight_norm": rbm.W.norm(),
        "free_energy_gap": rbm.free_energy(validation).mean() - rbm.free_energy(train).mean(),
    }
    for name, value in expected.items():
        assert float(last[name]) == pytest.approx(value.item(), rel=1e-6)
    gap = log_likelihood(rbm, stripes[:20]) - log_likelihood(rbm, stripes[20:])
    assert float(last["free_energy_gap"]) == pytest.approx(gap, abs=1e-4)
    assert 0 < float(last["seconds"]) < history.attrs["training_seconds"]
    assert history.attrs["method"] == "pcd"


def test_history_can_be_saved(stripes, tmp_path):
    _, history = fit(stripes)
    assert "free_energy_gap" not in history
    json = history.to_dict()
    assert all(isinstance(v, str | int | float) for v in json["attrs"].values())


def test_about_a_hundred_looks_by_default(stripes):
    _, history = fit(stripes, epochs=250)
    assert history.sizes["epoch"] == 125


def test_early_stopping_restores_the_last_parameters_within_tolerance(stripes):
    rule = EarlyStopping(tolerance=0.5, patience=3)
    options = {"measure_every": 2, "validation_data": stripes[::3], "weight_decay": 0.0}
    train = np.delete(stripes, np.s_[::3], axis=0)
    stopped, history = fit(train, epochs=400, early_stopping=rule, **options)
    assert history["epoch"][-1] < 400
    gap = history["free_energy_gap"].to_numpy()
    outside = gap > np.minimum.accumulate(gap) + 0.5
    assert outside[-3:].all()
    assert not outside[-4]
    train_, validation = (torch.as_tensor(x).float() for x in (train, stripes[::3]))
    restored = stopped.free_energy(validation).mean() - stopped.free_energy(train_).mean()
    assert restored.item() == pytest.approx(gap[-4], rel=1e-6)


def test_progress_bar(stripes, capsys):
    fit(stripes, progressbar=False)
    assert capsys.readouterr().out == ""
    fit(stripes, progressbar=True)
    shown = capsys.readouterr().out
    assert "3/3" in shown
    assert "PLL -" in shown


def test_threads_are_restored(stripes):
    def blas_threads():
        return [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]

    with threadpoolctl.threadpool_limits(2):
        torch.set_num_threads(2)
        before = blas_threads()
        fit(stripes)
        assert torch.get_num_threads() == 2
        assert blas_threads() == before


# ------------------------------------------------------------------------------- other devices


@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)
def test_the_torch_path_learns_too(stripes, options, monkeypatch):
    """What runs on other devices, run on the CPU."""
    monkeypatch.setattr(rbm_module, "backend_for", lambda p, rng: TorchBackend(p.dtype, rng, p.device))
    rbm, _ = fit(stripes, **{"epochs": 600, "weight_decay": 1e-4, **options})
    assert log_likelihood(rbm, stripes) > -5.5


@pytest.mark.gpu
@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)
def test_training_on_cuda(stripes, options):
    rbm = RBM(16, 10, device="cuda")
    _, history = fit(stripes, rbm=rbm, **{"epochs": 600, "weight_decay": 1e-4, **options})
    assert rbm.W.is_cuda
    assert log_likelihood(rbm, stripes) > -5.5
    assert np.isfinite(history["pseudo_log_likelihood"]).all()
    assert rbm.sample(4, 100, random_seed=1).posterior["v"].shape == (4, 100, 16)


# ----------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (
            np.zeros((5, 3)),
            ValueError,
            r"X must have shape \(n, 4\) with n >= 1; got shape \(5, 3\)",
        ),
        (np.zeros(4), ValueError, r"X must have shape \(n, 4\) with n >= 1; got shape \(4,\)"),
        (np.zeros((0, 4)), ValueError, r"got shape \(0, 4\)"),
        ([[0, 1, 0, 0.5]], ValueError, "X must hold only 0 and 1; got 0.5 in row 0, column 3"),
        ([[0, 1, 0, 255]], ValueError, "X must hold only 0 and 1; got 255 in row 0, column 3"),
        ([[0, 1, -1, 0]], ValueError, "X must hold only 0 and 1; got -1 in row 0, column 2"),
        ([[0, np.nan, 1, 1]], ValueError, "X must hold only 0 and 1; got nan in row 0, column 1"),
        (
            np.ma.masked_array(np.zeros((2, 4))),
            ValueError,
            "X must be complete; got a masked array",
        ),
        (np.full((2, 4), "0"), TypeError, "X must be an array of numbers 0 and 1; got dtype <U1"),
    ],
)
def test_bad_data_are_refused(X, error, message):
    rbm = RBM(4, 2)
    with pytest.raises(error, match=message):
        rbm.fit(X, progressbar=False)
    with pytest.raises(error, match=message.replace("X must", "validation_data must")):
        rbm.fit(np.zeros((2, 4)), validation_data=X, progressbar=False)
    assert not rbm.a.any()


def test_a_checkpoint_in_no_folder_is_refused(stripes, tmp_path):
    with pytest.raises(FileNotFoundError, match="checkpoint: there is no folder"):
        RBM(16, 4).fit(stripes, checkpoint=tmp_path / "missing" / "rbm", progressbar=False)
    with pytest.raises(ValueError, match="checkpoint must be the path of a file; got the folder"):
        RBM(16, 4).fit(stripes, checkpoint=tmp_path, progressbar=False)


def test_a_checkpoint_in_a_folder_that_is_read_only_is_refused(stripes, tmp_path, monkeypatch):
    """By what the system says of the folder: a superuser may write to any."""
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    with pytest.raises(PermissionError, match=r"checkpoint: the folder .* is read-only"):
        RBM(16, 4).fit(stripes, checkpoint=tmp_path / "rbm", progressbar=False)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs must be at least 1; got 0"),
        ({"epochs": 2.5}, TypeError, "epochs must be an integer; got 2.5"),
        ({"k": 0}, ValueError, "k must be at least 1; got 0"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1; got 0"),
        ({"method": "CD"}, ValueError, "method must be 'cd', 'pcd' or 'pt'; got 'CD'"),
        ({"n_chains": 0}, ValueError, "n_chains must be at least 1; got 0"),
        ({"method": "cd", "n_chains": 5}, ValueError, "n_chains belongs to methods 'pcd' and 'pt'"),
        ({"n_temperatures": 5}, ValueError, "n_temperatures belongs to method='pt'"),
        ({"method": "pt", "n_temperatures": 1}, ValueError, "n_temperatures must be at least 2"),
        ({"learning_rate_schedule": "step"}, ValueError, "learning_rate_schedule must be one of"),
        ({"measure_every": 0}, ValueError, "measure_every must be at least 1"),
        ({"checkpoint_every": 0}, ValueError, "checkpoint_every must be at least 1"),
        ({"resume": True}, ValueError, "resume=True needs the path of a checkpoint"),
        (
            {"early_stopping": 5, "validation_data": np.eye(16)},
            TypeError,
            "early_stopping must be an EarlyStopping; got 5",
        ),
        ({"early_stopping": EarlyStopping()}, ValueError, "early_stopping watches validation_data"),
    ],
)
def test_bad_arguments_are_refused(stripes, arguments, error, message):
    rbm = RBM(16, 4)
    with pytest.raises(error, match=message):
        rbm.fit(stripes, progressbar=False, **arguments)
    assert not rbm.a.any()


def test_divergence_is_an_error(stripes):
    optimizer = functools.partial(torch.optim.SGD, lr=1e30)
    with (
        np.errstate(all="ignore"),
        pytest.raises(FloatingPointError, match="training diverged"),
    ):
        fit(stripes, epochs=50, optimizer=optimizer)


def test_a_machine_made_in_inference_mode_is_trained_outside(stripes):
    with torch.inference_mode():
        machines = RBM(stripes.shape[1], 2), GaussianRBM(stripes.shape[1], 2)
    for machine in machines:
        machine.fit(stripes[:20], epochs=1, optimizer=torch.optim.Adam, progressbar=False)
        assert machine.W.any()


def test_frozen_sigma_is_no_frozen_parameter(stripes):
    machine = GaussianRBM(stripes.shape[1], 2, sigma=0.7, learn_sigma=False)
    machine.fit(stripes[:20], epochs=1, progressbar=False)
    np.testing.assert_allclose(machine.sigma.detach(), 0.7, rtol=1e-6)


@pytest.mark.parametrize("backend", [NumPyBackend, functools.partial(TorchBackend, device="cpu")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_data_are_copied_once_and_in_the_type_of_the_machine(backend, dtype, rng):
    """Read-only data, backwards, and of the other byte order, as torch does not take them."""
    backend = backend(dtype, rng)
    for data in (np.ones((300, 400), dtype=bool), np.full((300, 400), 0.1, dtype=">f8")[::-1]):
        data.flags.writeable = False
        tracemalloc.start()
        got = backend.floats(data)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1.1 * data.size * dtype.itemsize
        np.testing.assert_array_equal(np.asarray(got), data.astype(np.float32 if dtype.itemsize == 4 else float))
