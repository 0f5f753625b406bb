import numpy as np
import pytest
import torch

from pm_neural.spiking import InputSpikes


@pytest.mark.parametrize("probability", [0.001, 0.03, 0.4, 0.9])
def test_inputs_spike_independently_at_their_rate(rng, probability):
    """Counts, and pairs in neighboring cells, within 5 standard errors: false alarms below 1e-5."""
    inputs = InputSpikes.poisson(400, 5, 50, probability=probability, stream=rng)
    dense = inputs.to_dense().numpy()
    n = dense.size
    assert abs(dense.sum() - n * probability) < 5 * np.sqrt(n * probability * (1 - probability))
    flat = dense.ravel()
    pairs = (flat[1:] * flat[:-1]).mean()
    p = probability**2
    assert abs(pairs - p) < 5 * np.sqrt(p * (1 + 2 * probability) / n)
    for axis in ((0, 1), (1, 2)):
        counts = dense.sum(axis)
        cells = n / counts.size
        assert np.abs(counts - cells * probability).max() < 6 * np.sqrt(cells * probability * (1 - probability)) + 1


def test_events_and_dense_spikes_agree(rng):
    dense = torch.tensor(rng.random((7, 3, 11)) < 0.2, dtype=torch.float32)
    inputs = InputSpikes.from_dense(dense)
    assert inputs.shape == (7, 3, 11)
    torch.testing.assert_close(inputs.to_dense(), dense)
    np.testing.assert_array_equal(inputs.sources, np.nonzero(dense.numpy())[2])


def test_room_grows_where_more_spikes_come_than_expected(rng, monkeypatch):
    monkeypatch.setattr("pm_neural.spiking._inputs._SLACK", -20.0)
    inputs = InputSpikes.poisson(100, 4, 50, probability=0.1, stream=rng)
    assert inputs.offsets[-1] == len(inputs.sources)
    assert abs(len(inputs.sources) - 2000) < 250
    assert (np.diff(inputs.offsets) >= 0).all()
    assert inputs.to_dense().sum() == len(inputs.sources), "no cell spikes twice"


@pytest.mark.parametrize("values", [torch.full((2, 1, 3), 0.5), torch.full((2, 1, 3), torch.nan)])
def test_inputs_must_be_binary(values):
    with pytest.raises(ValueError, match="inputs must hold only 0 and 1"):
        InputSpikes.from_dense(values)


def test_inputs_must_have_three_dimensions():
    with pytest.raises(ValueError, match=r"\(n_steps, n_chains, n_inputs\); got \(2, 3\)"):
        InputSpikes.from_dense(torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("offsets", "sources", "error", "message"),
    [
        ([0, 1, 2], [0, 3], ValueError, "sources must be numbers of inputs, from 0 to 2; got some from 0 to 3"),
        ([0, 1, 2], [-1, 0], ValueError, "sources must be numbers of inputs, from 0 to 2; got some from -1 to 0"),
        ([0, 1, 3], [0, 1], ValueError, "offsets must rise from 0 to the number of spikes, 2"),
        ([0, 3, 2], [0, 1], ValueError, "offsets must rise from 0"),
        ([0, 2], [0, 1], ValueError, r"offsets must have shape \(3,\) and sources \(n_spikes,\); got \(2,\)"),
        ([0.0, 1.0, 2.0], [0, 1], TypeError, "offsets must be int64 and sources int32; got float64 and int32"),
    ],
)
def test_events_that_are_none_are_refused(offsets, sources, error, message):
    with pytest.raises(error, match=message):
        InputSpikes((2, 1, 3), np.array(offsets), np.array(sources, dtype=np.int32))


@pytest.mark.parametrize("probability", [0, 1, -0.1, np.nan])
def test_inputs_spike_with_a_probability(rng, probability):
    with pytest.raises(ValueError, match=r"probability must be in \(0, 1\)"):
        InputSpikes.poisson(2, 3, 4, probability=probability, stream=rng)
