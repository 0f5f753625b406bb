import copy
import math
import pickle

import numpy as np
import pytest
import torch

from pm_neural.spiking import SamplingNetwork, Traces, joint_distribution
from pm_neural.spiking.simulators.cell import refractory_step
from pm_neural.spiking.simulators.norse import LIFRefracRecurrentCell, LIFRefracState, LIFState
from pm_neural.spiking.simulators.surrogate import surrogate_step

SHAPES = {
    "as in the notes": {"n_neurons": 32, "n_inputs": 256},
    "few": {"n_neurons": 3, "n_inputs": 40, "input_rate": 200.0},
    "odd": {"n_neurons": 37, "n_inputs": 30, "refractory_time": 1, "input_rate": 150.0},
    "long refractoriness": {"n_neurons": 16, "n_inputs": 64, "refractory_time": 20, "leak": 1.4},
    "shallow surrogate": {"n_neurons": 8, "n_inputs": 64, "sharpness": 10.0, "n_readout": 1},
}


def make(rng, **options) -> SamplingNetwork:
    options = {"dtype": torch.float64, "random_seed": rng} | options
    if "leak" not in options and options.get("n_neurons"):
        options["leak"] = rng.normal(1.0, 0.2, options["n_neurons"])
    return SamplingNetwork(**options)


def random_state(network, n_chains, rng) -> LIFRefracState:
    shape = n_chains, network.n_neurons
    rho = torch.tensor(rng.integers(0, network.refractory_time + 1, shape), dtype=network.leak.dtype)
    z = (rho == network.refractory_time).to(rho.dtype)
    v, i = (torch.tensor(rng.uniform(0, 0.9, shape), dtype=rho.dtype) for _ in range(2))
    return LIFRefracState(LIFState(z, v, i), rho)


def run(network, engine, inputs, state, slopes) -> tuple[Traces, torch.Tensor, torch.Tensor]:
    """Traces, and the gradient of a loss in which all of them have a part."""
    network.engine = engine
    network.zero_grad()
    traces = network(inputs, state)
    loss = sum((slope * trace).sum() for slope, trace in zip(slopes, traces[:3], strict=True))
    law = joint_distribution(traces.refractory[..., : network.n_readout])
    (loss / len(slopes[0]) + law.square().sum()).backward()
    return traces, network.input_weights.grad.clone(), network.recurrent_weights.grad.clone()


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("n_steps", [1, 200])
def test_fused_and_norse_give_the_same_spikes_and_gradients(rng, name, n_steps):
    network = make(rng, **SHAPES[name])
    inputs = network.draw_inputs(n_steps, 3, random_seed=rng)
    state = random_state(network, 3, rng)
    slopes = torch.tensor(rng.normal(size=(3, n_steps, 3, network.n_neurons)))
    fused, norse = (run(network, engine, inputs, state, slopes) for engine in ("fused", "norse"))
    if n_steps > 1:
        assert 0.01 < fused[0].refractory.mean().item() < 0.95
        assert float(norse[1].abs().max()) > 1e-6
        assert float(norse[2].abs().max()) > 1e-6
    assert torch.equal(fused[0].spikes, norse[0].spikes)
    assert torch.equal(fused[0].refractory, norse[0].refractory)
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(fused[0].voltages, norse[0].voltages, **close)
    for ours, theirs in zip(fused[1:], norse[1:], strict=True):
        torch.testing.assert_close(ours, theirs, **close)
    ends = (traces.state for traces in (fused[0], norse[0]))
    for ours, theirs in zip(*((*s.lif, s.rho) for s in ends), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), **close)


@pytest.mark.parametrize("trace", ["refractory", "spikes", "voltages"])
def test_the_gradient_of_each_trace_alone_is_norses(rng, trace):
    network = make(rng, n_neurons=10, n_inputs=40)
    inputs = network.draw_inputs(60, 2, random_seed=rng)
    slope = torch.tensor(rng.normal(size=(60, 2, 10)))
    gradients = []
    for engine in ("fused", "norse"):
        network.engine = engine
        loss = (slope * getattr(network(inputs), trace)).sum()
        gradients.append(torch.autograd.grad(loss, list(network.parameters())))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_the_reference_is_norses_own_cell(rng, monkeypatch):
    """Norse's own step, whose surrogate is replaced by ours since that of 1.1.0 ignores alpha."""
    network = make(rng, n_neurons=12, n_inputs=50)
    inputs = network.draw_inputs(100, 2, random_seed=rng).to_dense(dtype=torch.float64)
    for module in ("lif", "lif_refrac"):
        path = f"norse.torch.functional.{module}.threshold"
        monkeypatch.setattr(path, lambda x, method, alpha: surrogate_step(x, alpha))
    runs = []
    for activation in (None, refractory_step):
        weights = [w.detach().clone().requires_grad_() for w in network.parameters()]
        cell = LIFRefracRecurrentCell(
            50, 12, network.neuron_parameters, input_weights=weights[0], recurrent_weights=weights[1], autapses=True
        )
        if activation is not None:
            cell.activation = activation
        state, total = network.initial_state(2), 0.0
        for x in inputs:
            z, state = cell(x, state)
            total = total + (z * state.lif.v).sum() + state.rho.square().sum()
        total.backward()
        runs.append((z, state.lif.v, state.lif.i, state.rho, *(w.grad for w in weights)))
    for theirs, ours in zip(*runs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_engines_agree_in_law_in_single_precision(rng):
    """Mean refractoriness of each neuron over 64 runs of 500 steps, within 5 standard errors: false alarms 1e-5."""
    network = SamplingNetwork(n_neurons=8, n_inputs=64, input_rate=120.0, random_seed=rng)
    means = []
    for engine in ("fused", "norse"):
        network.engine = engine
        with torch.no_grad():
            means.append(network(network.draw_inputs(500, 64, random_seed=rng)).refractory.mean(0))
    difference = means[0].mean(0) - means[1].mean(0)
    error = torch.sqrt((means[0].var(0) + means[1].var(0)) / 64)
    assert (difference.abs() < 5 * error).all()


def test_a_neuron_is_refractory_for_its_time_and_keeps_its_voltage(rng):
    network = make(rng, n_neurons=6, n_inputs=60, refractory_time=7, input_rate=100.0)
    traces = network(network.draw_inputs(300, 2, random_seed=rng))
    refractory, spikes, voltages = (x.detach().numpy() for x in traces[:3])
    fired = np.argwhere(spikes[:-8] == 1)
    assert len(fired) > 20
    for step, chain, neuron in fired:
        assert (refractory[step : step + 7, chain, neuron] == 1).all()
        assert spikes[step + 1 : step + 8, chain, neuron].sum() == 0
        assert (voltages[step : step + 8, chain, neuron] == 0).all()
    assert refractory.sum() == pytest.approx(7 * spikes.sum(), abs=7 * 12)


def test_runs_go_on_from_a_state(rng):
    network = make(rng, n_neurons=9, n_inputs=40)
    inputs = network.draw_inputs(80, 2, random_seed=rng).to_dense(dtype=torch.float64)
    whole = network(inputs)
    first = network(inputs[:30])
    second = network(inputs[30:], first.state)
    torch.testing.assert_close(torch.cat([first.voltages, second.voltages]), whole.voltages)
    assert torch.equal(torch.cat([first.spikes, second.spikes]), whole.spikes)


def test_autapses_have_no_effect_and_no_gradient(rng):
    network = make(rng, n_neurons=8, n_inputs=40)
    for engine in ("fused", "norse"):
        network.engine = engine
        other = copy.deepcopy(network)
        with torch.no_grad():
            other.recurrent_weights.fill_diagonal_(5.0)
        inputs = network.draw_inputs(100, 2, random_seed=1)
        traces = other(inputs)
        assert torch.equal(traces.spikes, network(inputs).spikes)
        traces.refractory.sum().backward()
        assert not other.recurrent_weights.grad.diagonal().any()
        assert other.recurrent_weights.grad.any()


def test_gradients_stay_finite_over_two_thousand_steps():
    """A surrogate that ignores its sharpness overflows after some hundred."""
    network = SamplingNetwork(random_seed=1)
    norms = []
    for n_steps in (200, 2000):
        law = joint_distribution(network(network.draw_inputs(n_steps, 8, random_seed=2)).refractory[..., :3])
        gradient = torch.autograd.grad(law[:, 0].mean(), list(network.parameters()))
        norms.append(math.sqrt(sum(float(g.square().sum()) for g in gradient)))
    assert 0 < norms[1] < 3 * norms[0]


def test_surrogate_honors_its_sharpness():
    x = torch.tensor([-0.5, 0.0, 0.25], requires_grad=True)
    y = surrogate_step(x, 100.0)
    y.sum().backward()
    assert y.tolist() == [0, 0, 1]
    torch.testing.assert_close(x.grad, torch.tensor([1 / 51**2, 1.0, 1 / 26**2]))


def test_seeds_and_copies(rng):
    one, other = (SamplingNetwork(n_neurons=5, n_inputs=9, random_seed=4) for _ in range(2))
    assert torch.equal(one.input_weights, other.input_weights)
    inputs = one.draw_inputs(50, 2, random_seed=3)
    np.testing.assert_array_equal(inputs.sources, one.draw_inputs(50, 2, random_seed=3).sources)
    loaded = pickle.loads(pickle.dumps(one))
    assert torch.equal(loaded(inputs).voltages, one(inputs).voltages)
    assert repr(one).startswith("SamplingNetwork(n_neurons=5, n_inputs=9, n_readout=3")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_neurons": 0}, ValueError, "n_neurons must be at least 1; got 0"),
        ({"n_inputs": 2.5}, TypeError, "n_inputs must be an integer; got 2.5"),
        ({"n_neurons": 4, "n_readout": 5}, ValueError, "n_readout must be at most 4; got 5"),
        ({"n_readout": 21}, ValueError, "n_readout must be at most 20; got 21"),
        ({"refractory_time": 0}, ValueError, "refractory_time must be at least 1; got 0"),
        ({"input_rate": 1000.0}, ValueError, r"input_rate must be in \(0, 1000.0\); got 1000.0"),
        ({"input_rate": 0}, ValueError, "input_rate must be in"),
        ({"sharpness": 0}, ValueError, "sharpness must be in"),
        ({"leak": math.nan}, ValueError, "leak must be finite"),
        ({"leak": [1.0, 2.0]}, ValueError, r"one number or 32; got shape \(2,\)"),
        ({"leak": "high"}, TypeError, "leak must be a number"),
        ({"engine": "brian"}, ValueError, "engine must be one of 'fused', 'norse'; got 'brian'"),
        ({"dtype": torch.float16}, TypeError, "dtype must be torch.float32 or torch.float64"),
        ({"device": "meta"}, ValueError, "engine='fused' runs on the CPU and on CUDA; got device meta"),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        SamplingNetwork(**options)


def test_bad_inputs_and_states(rng):
    network = make(rng, n_neurons=4, n_inputs=6)
    with pytest.raises(ValueError, match=r"inputs must have shape \(n_steps, n_chains, 6\); got \(3, 2, 5\)"):
        network(torch.zeros(3, 2, 5))
    with pytest.raises(ValueError, match=r"only 0 and 1; got 0\.5"):
        network(torch.full((3, 2, 6), 0.5))
    state = random_state(network, 3, rng)
    with pytest.raises(ValueError, match=r"state must hold z of shape \(2, 4\).*got \(3, 4\)"):
        network(torch.zeros(3, 2, 6), state)
    with torch.no_grad():
        network.input_weights[0, 0] = torch.nan
    with pytest.raises(ValueError, match="input_weights must be finite"):
        network(torch.zeros(3, 2, 6))


@pytest.mark.parametrize("engine", ["fused", "norse"])
def test_overflow_is_reported(engine):
    network = SamplingNetwork(n_neurons=3, n_inputs=4, engine=engine, random_seed=1)
    with torch.no_grad():
        network.input_weights.fill_(3e38)
    with pytest.raises(FloatingPointError, match=r"current (inf|nan) of neuron 0 in chain 0"):
        network(torch.ones(20, 2, 4))


def test_the_old_name_of_the_number_of_draws_is_deprecated():
    network = SamplingNetwork(n_neurons=2, n_inputs=8, n_readout=1, random_seed=1)
    with pytest.warns(DeprecationWarning, match="n_steps is called n_draws now"):
        old = network.sample(2, n_steps=5, random_seed=1)
    np.testing.assert_array_equal(old["posterior"]["z"], network.sample(2, n_draws=5, random_seed=1)["posterior"]["z"])
