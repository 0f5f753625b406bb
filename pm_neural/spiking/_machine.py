"""Boltzmann machines as arrays."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from scipy.special import softmax

from pm_neural.diagnostics.enumeration import enumerate_states


class Machine(NamedTuple):
    """A Boltzmann machine of 0/1 units, E(z) = −b·z − ½ zᵀJz.

    Attributes
    ----------
    J : ndarray, (n, n)
        Symmetric, with zero diagonal.
    b : ndarray, (n,)
    """

    J: np.ndarray
    b: np.ndarray

    @classmethod
    def read(cls, network: Any, name: str) -> Self:
        """Take (J, b), a tuple or a list, or a `BoltzmannMachine` or `Ising` variable with fixed parameters.

        Raises
        ------
        TypeError
            `network` is neither.
        ValueError
            The arrays do not fit, or are no symmetric finite couplings without diagonal; or a parameter of the
            variable depends on other random variables.
        """
        J, b = network if _is_pair(network) else _read_variable(network, name)
        return cls(*_checked(J, b, name))

    def law(self) -> np.ndarray:
        """Compute the exact probabilities of all states, (2**n,), in the order of `enumerate_states`."""
        states = enumerate_states(len(self.b))
        return softmax(states @ self.b + 0.5 * np.einsum("si,ij,sj->s", states, self.J, states))


def is_machine(network: Any) -> bool:
    """Whether `Machine.read` takes `network`."""
    if _is_pair(network):  # of a matrix and biases; of two numbers it is probabilities, and of two rows samples
        return any(issparse(part) or np.ndim(part) > 1 for part in network)
    return hasattr(network, "owner")


def _is_pair(network: Any) -> bool:
    return isinstance(network, tuple | list) and len(network) == 2


def _read_variable(variable: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    from step_methods.network import PairwiseNetwork
    from step_methods.reading.graphs import evaluate, random_inputs
    from step_methods.reading.layers import network_node

    found = network_node(variable) if hasattr(variable, "owner") else None
    if found is None or not isinstance(found[1], PairwiseNetwork):
        raise TypeError(f"{name} must be a pair (J, b) or a variable of BoltzmannMachine or Ising; got {variable!r}")
    network = found[1]
    parameters = list(network.parameters.values())
    if random_inputs(parameters):
        raise ValueError(f"{name} must have fixed parameters; those of {variable!r} depend on random variables")
    coupling, biases = evaluate(parameters)
    J = np.multiply(coupling, network.couplings.toarray())
    if network.values == (0, 1):
        return J, biases
    # Spins: s = 2z - 1.
    return 4 * J, 2 * biases - 2 * J.sum(axis=1)


def _checked(J: Any, b: ArrayLike, name: str) -> tuple[np.ndarray, np.ndarray]:
    J, b = J.toarray() if issparse(J) else np.asarray(J), np.asarray(b)
    if J.dtype.kind not in "iuf" or b.dtype.kind not in "iuf":
        raise TypeError(f"{name} must hold real numbers; got dtypes {J.dtype} and {b.dtype}")
    if b.ndim != 1 or J.shape != (len(b), len(b)) or not len(b):
        raise ValueError(f"{name} must hold J of shape (n, n) and b of shape (n,); got {J.shape} and {b.shape}")
    if not (np.isfinite(J).all() and np.isfinite(b).all()):
        raise ValueError(f"{name} must hold finite numbers; got NaN or infinity")
    if not np.allclose(J, J.T) or np.diag(J).any():
        raise ValueError(f"{name} must hold a symmetric J with zero diagonal")
    return J.astype(float), b.astype(float)
