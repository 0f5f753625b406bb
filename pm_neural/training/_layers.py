"""The conditionals of a binary RBM on whole batches, written into the caller's arrays."""

from __future__ import annotations

from pm_neural.training._backend import Array, Backend


class BernoulliLayers:
    """Conditionals of the binary RBM, p(h=1|v) = sigmoid(b + vW) and p(v=1|h) = sigmoid(a + Wh).

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

    def hidden_field(self, v: Array, *, out: Array) -> None:
        """Write b + vW into `out`."""
        self.backend.matmul(v, self.W, out=out)
        out += self.b

    def visible_field(self, h: Array, *, out: Array) -> None:
        """Write a + Wh into `out`."""
        self.backend.matmul(h, self.W.T, out=out)
        out += self.a

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

    def sample_visible(self, h: Array, *, out: Array) -> None:
        """Draw v given h."""
        self.visible_field(h, out=out)
        self.backend.sample(out, out=out)

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
