import nir
import numpy as np

from pm_neural.spiking import SamplingNetwork


def network():
    return SamplingNetwork(n_neurons=6, n_inputs=20, leak=np.linspace(0.0, 0.2, 6), refractory_time=7, random_seed=1)


def test_graph_survives_its_file(tmp_path):
    graph = network().to_nir()
    path = tmp_path / "network.nir"
    nir.write(path, graph)
    read = nir.read(path)
    assert set(read.nodes) == set(graph.nodes)
    assert sorted(read.edges) == sorted(graph.edges)
    for name in ("input_weights", "recurrent_weights"):
        np.testing.assert_array_equal(read.nodes[name].weight, graph.nodes[name].weight)
    for field in ("tau_mem", "tau_syn", "r", "v_leak", "v_threshold", "v_reset", "w_in"):
        np.testing.assert_array_equal(getattr(read.nodes["neurons"], field), getattr(graph.nodes["neurons"], field))
    assert dict(read.metadata) == {"dt": 1e-3, "refractory_time": 7e-3, "input_rate": 30.0, "n_readout": 3}


def test_graph_says_what_the_network_does():
    """Integrate the graph's equations by Euler, as its definition has them, until the first neuron fires."""
    net = network()
    graph = net.to_nir()
    neurons, dt = graph.nodes["neurons"], graph.metadata["dt"]
    assert not np.diag(graph.nodes["recurrent_weights"].weight).any()
    inputs = net.draw_inputs(60, 1, random_seed=4)
    traces = net(inputs)
    fired = traces.spikes.detach().any(2).any(1).tolist()
    first = fired.index(True) if any(fired) else len(fired)
    assert first > 10
    current, v = np.zeros(6), np.full(6, 0.9)
    for x, expected in zip(inputs.to_dense().numpy()[:first, 0], traces.voltages.detach().numpy(), strict=False):
        drive = graph.nodes["input_weights"].weight @ x
        jumped = current + dt / neurons.tau_syn * neurons.w_in * drive
        v = v + dt / neurons.tau_mem * (neurons.v_leak - v + neurons.r * jumped)
        current = jumped - dt / neurons.tau_syn * jumped
        np.testing.assert_allclose(v, expected[0], rtol=1e-5, atol=1e-6)
