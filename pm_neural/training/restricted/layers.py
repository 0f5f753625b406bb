"""The conditionals of restricted Boltzmann machines on whole batches, written into the caller's arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod

from pm_neural.fitting.backend import Array, Backend


class Layers(ABC):
    """Conditionals of a machine whose hidden units are binary, p(h=1|v) = sigmoid(field of v).

    Parameters
    ----------
    backend : Backend
    W, a, b : arrays of the backend, (n_visible, n_hidden), (n_visible,), (n_hidden,)
        Views of the parameters: an update of the parameters is seen by the next call.
    """

    def __init__(self, backend: Backend, W: Array, a: Array, b: Array) -> None:
        self.backend = backend
        self.W, self.a, self.b = W, a, b
        self.n_visible, self.n_hidden = W.shape

    @abstractmethod
    def hidden_field(self, v: Array, *, out: Array) -> None:
        """Write the log odds of h given v into `out`."""

    @abstractmethod
    def sample_visible(self, h: Array, *, out: Array) -> None:
        """Draw v given h."""

    @abstractmethod
    def sample_tempered_visible(self, h: Array, beta: Array, *, out: Array) -> None:
        """Draw v given h, each row at its own inverse temperature, `beta` (n_rows, 1)."""

    @abstractmethod
    def tempered_energy(self, v: Array, h: Array, hidden_field: Array) -> Array:
        """Return the part of E(v, h) that the inverse temperature multiplies, up to a constant, (n_rows,)."""

    def hidden_mean(self, v: Array, *, out: Array) -> None:
        """Write p(h=1|v) into `out`."""
        self.hidden_field(v, out=out)
        self.backend.mean(out, out=out)

    def sample_hidden(self, v: Array, *, out: Array) -> None:
        """Draw h given v."""
        self.hidden_field(v, out=out)
        self.backend.sample(out, out=out)

    def sample_hidden_with_mean(self, v: Array, *, out: Array, mean: Array) -> None:
        """Draw h given v into `out`, with p(h=1|v) in `mean`."""
        self.hidden_field(v, out=mean)
        self.backend.sample_with_mean(mean, out=out, mean=mean)


class BernoulliLayers(Layers):
    """Conditionals of the binary RBM, p(h=1|v) = sigmoid(b + vW) and p(v=1|h) = sigmoid(a + Wh)."""

    def hidden_field(self, v: Array, *, out: Array) -> None:
        """Write b + vW into `out`."""
        self.backend.matmul(v, self.W, out=out)
        out += self.b

    def visible_field(self, h: Array, *, out: Array) -> None:
        """Write a + Wh into `out`."""
        self.backend.matmul(h, self.W.T, out=out)
        out += self.a

    def sample_visible(self, h: Array, *, out: Array) -> None:
        """Draw v given h."""
        self.visible_field(h, out=out)
        self.backend.sample(out, out=out)

    def sample_tempered_visible(self, h: Array, beta: Array, *, out: Array) -> None:
        """Draw v given h, all of whose energy is tempered."""
        self.visible_field(h, out=out)
        out *= beta
        self.backend.sample(out, out=out)

    def tempered_energy(self, v: Array, h: Array, hidden_field: Array) -> Array:
        """Return E(v, h)."""
        return -(v @ self.a + (hidden_field * h).sum(1))

    def pseudo_log_likelihood(self, v: Array) -> Array:
        """Sum log p(v_i | all other visible units) over the units of each row of `v`.

        Turning unit i over changes all hidden fields by ±W_i, so that log p(v_i | others) is
        -softplus(F(v) - F(v with i turned over)).
        """
        backend = self.backend
        result = backend.empty(len(v))
        field = backend.empty(len(v), self.n_hidden)
        unflipped = backend.empty(len(v))
        flipped = backend.empty(self.n_visible)
        self.hidden_field(v, out=field)
        backend.softplus_sums(field, out=unflipped)
        for row in range(len(v)):
            change = 1 - 2 * v[row]
            backend.softplus_sums(field[row] + change[:, None] * self.W, out=flipped)
            rise = change * self.a + flipped - unflipped[row]
            backend.softplus_sums(rise[None, :], out=result[row : row + 1])
        result *= -1.0
        return result


class GaussianLayers(Layers):
    """Conditionals of the Gaussian RBM, p(h=1|v) = sigmoid(b + (v/σ²)W) and v|h ~ N(a + Wh, σ²).

    What is tempered is the coupling of the layers, and b: at the inverse temperature 0 the visible units are
    N(a, σ²) and the hidden units fair coins. (With all of the energy tempered, there is no distribution at 0.)

    Parameters
    ----------
    log_sigma : array of the backend, (n_visible,)
        A view of the parameter, as the others are.
    """

    def __init__(self, backend: Backend, W: Array, a: Array, b: Array, log_sigma: Array) -> None:
        super().__init__(backend, W, a, b)
        self.log_sigma = log_sigma

    @property
    def sigma(self) -> Array:
        """Standard deviation of the visible units given the hidden ones, (n_visible,)."""
        return self.backend.exp(self.log_sigma)

    @property
    def precision(self) -> Array:
        """1/σ², (n_visible,)."""
        return self.backend.exp(-2 * self.log_sigma)

    def hidden_field(self, v: Array, *, out: Array) -> None:
        """Write b + (v/σ²)W into `out`."""
        self.backend.matmul(v * self.precision, self.W, out=out)
        out += self.b

    def sample_visible(self, h: Array, *, out: Array) -> None:
        """Draw v given h."""
        self.backend.matmul(h, self.W.T, out=out)
        self.backend.sample_normal(out, mean=self.a, sd=self.sigma)

    def sample_tempered_visible(self, h: Array, beta: Array, *, out: Array) -> None:
        """Draw v given h, where Wh is tempered and σ is not."""
        self.backend.matmul(h, self.W.T, out=out)
        out *= beta
        self.backend.sample_normal(out, mean=self.a, sd=self.sigma)

    def tempered_energy(self, v: Array, h: Array, hidden_field: Array) -> Array:
        """Return −b·h − (v/σ²)ᵀWh."""
        return -(hidden_field * h).sum(1)
