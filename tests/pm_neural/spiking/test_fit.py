import numpy as np
import pymc as pm
import pytest
import torch
import xarray as xr

import pm_neural as pmn
from pm_neural.spiking import EarlyStopping, SamplingNetwork
from pm_neural.spiking._learner import SpikingLearner, batch_divergences, scatter_divergence
from pm_neural.spiking._target import read_target

LAW = np.array([0.45, 0.25, 0.2, 0.1])
J = np.array([[0.0, 0.8], [0.8, 0.0]])
B = np.array([-0.3, 0.2])


def small(seed=1, **options) -> SamplingNetwork:
    return SamplingNetwork(**{"n_neurons": 12, "n_inputs": 64, "n_readout": 2, "random_seed": seed, **options})


def fit(network, target=LAW, **options) -> xr.Dataset:
    arguments = {"epochs": 6, "n_steps": 200, "n_chains": 8, "random_seed": 3, "progressbar": False, **options}
    return network.fit(target, **arguments)


# --- what is learnt ---------------------------------------------------------------------------------


def test_training_reaches_its_target_on_fresh_noise():
    """KL of the whole batch below 5e-3, where it starts above 0.05; the noise of 32,000 steps is about 1e-3."""
    network = small(n_neurons=32, n_inputs=256)
    history = fit(network, epochs=120, n_steps=1000, n_chains=32)
    assert history.kl[0] > 0.05
    assert history.kl[-3:].mean() < 5e-3
    assert (history.kl_noise > 0).all()
    tree = network.sample(16, 2000, target=LAW, random_seed=5)
    assert tree["posterior"].attrs["kl"] < 5e-3


def test_a_teacher_is_learnt_and_sets_the_floor():
    teacher = small(2)
    history = fit(small(), teacher, epochs=60, n_steps=500, n_chains=16)
    assert 0 < history.attrs["teacher_kl"] < 0.02
    assert history.attrs["teacher_kl"] < history.attrs["teacher_kl_trial"]
    assert history.kl[-1] < 0.3 * history.kl[0]
    law = small()._target_of(teacher)
    np.testing.assert_array_equal(law, small(7)._target_of(teacher))
    samples = pmn.diagnostics.state_probabilities(teacher.sample(32, 10_000, random_seed=8), "z", values=(0, 1))
    difference = np.abs(law - samples.probabilities)
    assert (difference < 5 * samples.standard_errors + 1e-3).all()


def test_the_engines_train_alike():
    """The first steps of both, in double precision: later the same rounding errors grow."""
    networks = [small(dtype=torch.float64, engine=engine) for engine in ("fused", "norse")]
    histories = [fit(network, epochs=3, n_steps=100, n_chains=4) for network in networks]
    for ours, theirs in zip(*(n.parameters() for n in networks), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(histories[0].kl, histories[1].kl, rtol=1e-7)


@pytest.mark.parametrize("optimizer", ["sgd", torch.optim.RMSprop])
def test_other_optimizers(optimizer):
    history = fit(small(), optimizer=optimizer, learning_rate=None, epochs=60)
    assert history.kl[-3:].mean() < 0.8 * history.kl[0]


def test_a_network_is_made_and_trained_in_inference_mode_as_elsewhere():
    def trained():
        network = small()
        fit(network, epochs=1)
        return network.input_weights

    with torch.inference_mode():
        inside = trained()
    torch.testing.assert_close(inside, trained(), rtol=0, atol=0)


# --- targets ----------------------------------------------------------------------------------------


def exact_law(J, b):
    with pm.Model():
        return pmn.diagnostics.exact_state_probabilities(pmn.BoltzmannMachine("z", J, b))


def test_kinds_of_target():
    law = exact_law(J, B)
    for target in (law, law.probabilities, torch.tensor(law.probabilities), (J, B), [J, B]):
        np.testing.assert_allclose(read_target(target, 2), law.probabilities, atol=1e-12)
    with pm.Model():
        z = pmn.BoltzmannMachine("z", J, B)
        s = pmn.Ising("s", J, B)
        spins = pmn.diagnostics.exact_state_probabilities(s)
    np.testing.assert_allclose(read_target(z, 2), law.probabilities, atol=1e-7)
    np.testing.assert_allclose(read_target(s, 2), spins.probabilities, atol=1e-7)
    samples = np.array([[0, 0], [0, 1], [1, 1], [0, 1]])
    np.testing.assert_allclose(read_target(samples, 2), [0.25, 0.5, 0, 0.25])


def random_machine():
    with pm.Model():
        return pmn.BoltzmannMachine("z", J, pm.Normal("b", shape=2), normalize="exact")


def test_pairs_of_numbers_are_probabilities_and_pairs_of_rows_samples():
    np.testing.assert_allclose(read_target((0.3, 0.7), 1), [0.3, 0.7])
    np.testing.assert_allclose(read_target(((0, 1), (1, 0)), 2), [0, 0.5, 0.5, 0])


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ([0.5, 0.5], ValueError, r"target must have the shape \(4,\)"),
        ([0.5, 0.5, 0.5, 0.5], ValueError, "target must be probabilities that sum to 1"),
        ([0.5, np.nan, 0.5, 0.0], ValueError, "target must be probabilities"),
        ([[0, 1, 1]], ValueError, r"target must have shape \(n, 2\)"),
        ([[0, 2]], ValueError, "target must hold only 0 and 1"),
        ((0.5, 0.5), ValueError, r"target must have the shape \(4,\)"),
        ("ising", TypeError, "target must be the probabilities of all states"),
        ((np.zeros((3, 3)), np.zeros(3)), ValueError, "target must have 2 units, as many as n_readout; got 3"),
        ((np.ones((2, 2)), np.zeros(2)), ValueError, "symmetric J with zero diagonal"),
        ((np.zeros((2, 3)), np.zeros(2)), ValueError, "target must hold J of shape"),
        ((np.full((2, 2), np.inf), np.zeros(2)), ValueError, "finite"),
        (("J", "b"), TypeError, "target must be the probabilities of all states"),
        ([np.zeros(2), np.zeros(3)], TypeError, "target must be the probabilities of all states"),
        ((np.full((2, 2), "J"), np.zeros(2)), TypeError, "real numbers"),
        (random_machine, ValueError, "fixed parameters"),
        (lambda: pm.Normal.dist(), TypeError, r"a pair \(J, b\) or a variable of BoltzmannMachine"),
        (lambda: small(n_readout=3), ValueError, "n_readout=2; got a network with 3"),
    ],
)
def test_bad_targets(target, error, message):
    with pytest.raises(error, match=message):
        fit(small(), target() if callable(target) and not isinstance(target, torch.nn.Module) else target)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs must be at least 1"),
        ({"n_steps": 0}, ValueError, "n_steps must be at least 1"),
        ({"n_chains": 1}, ValueError, "n_chains must be at least 2"),
        ({"learning_rate": -1}, ValueError, "learning_rate must be in"),
        ({"learning_rate_schedule": "step"}, ValueError, "learning_rate_schedule must be one of"),
        ({"optimizer": "adam"}, ValueError, "optimizer must be 'sgd'"),
        ({"resume": True}, ValueError, "resume=True needs"),
        ({"checkpoint": "/nowhere/at/all"}, FileNotFoundError, "there is no folder"),
        ({"measure_every": 0}, ValueError, "measure_every"),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        fit(small(), **options)


def test_frozen_weights_are_refused():
    network = small()
    network.input_weights.requires_grad_(False)
    with pytest.raises(ValueError, match="input_weights must require a gradient to be learnt; it is frozen"):
        fit(network)


# --- the loop ---------------------------------------------------------------------------------------


def test_history():
    history = fit(small(), measure_every=2)
    assert history.epoch.values.tolist() == [2, 4, 6]
    assert set(history) == {"loss", "kl", "kl_noise", "kl_trial", "seconds"}
    assert all(history[name].attrs["units"] for name in history)
    assert history.attrs["n_steps"] == 200
    assert history.attrs["refractory_time"] == 10
    assert np.isfinite(history.to_array()).all()


def test_seeds_make_the_same_training():
    one, other = small(), small()
    xr.testing.assert_identical(*(fit(n).drop_vars("seconds").drop_attrs() for n in (one, other)))
    assert torch.equal(one.input_weights, other.input_weights)
    third = small()
    fit(third, random_seed=4)
    assert not torch.equal(one.input_weights, third.input_weights)


@pytest.mark.parametrize("optimizer", ["sgd", torch.optim.Adam])
def test_resumed_training_is_bit_identical(tmp_path, monkeypatch, optimizer):
    path = tmp_path / "network.safetensors"
    options = {"optimizer": optimizer, "checkpoint_every": 2, "measure_every": 2, "target": small(2)}
    whole = small()
    expected = fit(whole, **options)
    original = SpikingLearner.train_epoch

    def interrupted(self, epoch):
        original(self, epoch)
        if epoch == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SpikingLearner, "train_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(small(), checkpoint=path, **options)
    resumed = small(9)
    with pytest.raises(ValueError, match="resume=True needs the arguments of the checkpoint: n_steps is 100"):
        fit(resumed, checkpoint=path, resume=True, **options, n_steps=100)
    with pytest.raises(ValueError, match=r"sharpness is 50\.0, and was 100\.0"):
        fit(small(sharpness=50.0), checkpoint=path, resume=True, **options)
    history = fit(resumed, checkpoint=path, resume=True, **options, random_seed=None)
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    xr.testing.assert_identical(*(h.drop_vars("seconds").drop_attrs() for h in (history, expected)))


def test_a_network_comes_back_from_its_checkpoint(tmp_path):
    path = tmp_path / "network.safetensors"
    network = small(leak=np.linspace(0.8, 1.2, 12), refractory_time=4, dtype=torch.float64)
    fit(network, checkpoint=path)
    loaded = SamplingNetwork.from_checkpoint(path)
    assert loaded.options() == network.options()
    inputs = network.draw_inputs(100, 2, random_seed=1)
    assert torch.equal(loaded(inputs).voltages, network(inputs).voltages)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cut short"):
        SamplingNetwork.from_checkpoint(path)


def test_early_stopping_keeps_the_best_weights():
    network = small()
    kept = []
    rule = EarlyStopping(tolerance=0.0, patience=2)
    history = fit(network, epochs=400, learning_rate=0.3, learning_rate_schedule="constant", early_stopping=rule)
    assert len(history.epoch) < 400
    kept = history.kl.values
    assert np.argmin(kept) == len(kept) - 3


class Derailing(torch.optim.SGD):
    """Gives up in its third step."""

    value = torch.nan
    steps = 0

    def step(self):
        self.steps += 1
        if self.steps == 3:
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.fill_(self.value)


@pytest.mark.parametrize("engine", ["fused", "norse"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.nan, "in epoch 3: the weights of the input synapses: NaN"),
        (3e38, "in epoch 4: the simulation diverged: current"),
    ],
)
def test_divergence_is_reported_in_its_epoch(monkeypatch, engine, value, message):
    monkeypatch.setattr(Derailing, "value", value)
    with pytest.raises(FloatingPointError, match=f"training diverged {message}.*; lower learning_rate"):
        fit(small(engine=engine), optimizer=Derailing, n_steps=50, measure_every=5)


def test_a_gradient_that_is_not_finite_is_reported(monkeypatch):
    monkeypatch.setattr("pm_neural.spiking._learner.smoothed", lambda law, n_steps: law * torch.nan)
    with pytest.raises(FloatingPointError, match="in epoch 1: the gradient of the input synapses"):
        fit(small())


def test_the_noise_estimate_is_what_scatter_makes(rng):
    """Against the mean KL of 4000 batches of trials from a Dirichlet law, within 10 %."""
    target = torch.tensor(LAW)
    laws = torch.tensor(rng.dirichlet(50 * LAW, size=(4000, 32)))
    divergences = [batch_divergences(target, law, 10**9)[0] for law in laws]
    noises = [scatter_divergence(target, law) for law in laws[:200]]
    assert np.mean(noises) == pytest.approx(np.mean(divergences), rel=0.1)


# --- samples ----------------------------------------------------------------------------------------


def test_samples_are_a_datatree_of_binary_draws():
    network = small()
    tree = network.sample(3, 100, random_seed=1)
    z = tree["posterior"].z
    assert z.dims == ("chain", "draw", "neuron")
    assert z.shape == (3, 100, 2)
    assert z.dtype == np.int8
    assert set(np.unique(z)) == {0, 1}
    assert "approximate" in tree["posterior"].attrs["exact"]
    assert "kl" not in tree["posterior"].attrs
    np.testing.assert_array_equal(z, network.sample(3, 100, random_seed=1)["posterior"].z)


def test_samples_do_not_depend_on_how_many_steps_are_simulated_at_once(monkeypatch):
    """But for which random numbers they use: their law is the same, within 5 standard errors."""
    network = small()
    laws = []
    for rows in (1 << 15, 320):
        monkeypatch.setattr("pm_neural.spiking.network._CHUNK_ROWS", rows)
        laws.append(pmn.diagnostics.state_probabilities(network.sample(32, 2000, random_seed=1), "z", values=(0, 1)))
    error = np.hypot(laws[0].standard_errors, laws[1].standard_errors)
    assert (np.abs(laws[0].probabilities - laws[1].probabilities) < 5 * error).all()


def test_samples_are_compared_with_a_target():
    network = small()
    tree = network.sample(32, 2000, random_seed=1)
    law = pmn.diagnostics.state_probabilities(tree, "z", values=(0, 1))
    attrs = network.sample(32, 2000, target=law.probabilities, random_seed=2)["posterior"].attrs
    assert 0 < attrs["kl"] < 10 * attrs["kl_noise"]
    assert attrs["kl_error"] > 0
    other = network.sample(32, 2000, target=LAW, random_seed=2)["posterior"].attrs
    assert other["kl"] > 10 * other["kl_error"]


@pytest.mark.parametrize(("arguments", "message"), [((0, 10), "n_chains"), ((2, 0), "n_draws")])
def test_bad_sample_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"{message} must be at least 1"):
        small().sample(*arguments)
