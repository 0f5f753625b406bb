"""What a spiking network is to sample from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pm_neural._arrays import as_array
from pm_neural.diagnostics.divergences import StateProbabilities
from pm_neural.diagnostics.markov import as_distribution
from pm_neural.fitting.checks import check_binary
from pm_neural.spiking._law import joint_distribution
from pm_neural.spiking._machine import Machine, is_machine

_WANTED = (
    "the probabilities of all states, samples (n, n_readout), a BoltzmannMachine or Ising variable, a pair (J, b), "
    "or a SamplingNetwork"
)


def read_target(target: Any, n_readout: int) -> np.ndarray:
    """Return the probabilities of all 2**n_readout states that a target stands for.

    A teacher network is not among the targets here: its law comes from a run.

    Raises
    ------
    TypeError
        The target is of no known kind.
    ValueError
        It has another number of neurons, or is no distribution.
    """
    n_states = 2**n_readout
    if isinstance(target, StateProbabilities):
        return as_distribution(target.probabilities, n_states, "target")
    if is_machine(target):
        machine = Machine.read(target, "target")
        if len(machine.b) != n_readout:
            raise ValueError(f"target must have {n_readout} units, as many as n_readout; got {len(machine.b)}")
        return machine.law()
    values = _as_numbers(target)
    if values is None:
        raise TypeError(f"target must be {_WANTED}; got {target!r}")
    if values.ndim == 1:
        p = as_distribution(values, n_states, "target").clip(min=0)
        return p / p.sum()
    samples = torch.as_tensor(check_binary(values, "target", n_readout).astype(float))
    return joint_distribution(samples[:, None, :])[0].numpy()


def _as_numbers(target: Any) -> np.ndarray | None:
    try:
        values = as_array(target)
    except ValueError:  # rows of unlike lengths
        return None
    return values if values.dtype.kind in "biuf" else None
