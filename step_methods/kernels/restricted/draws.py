"""One draw of a chain: from the old units of an RBM to new ones, their energy, and how many changed.

All functions here take the same arguments, so that a step method chooses one of them when it is built. The
units are arrays of zeros and ones of any integer type; a draw is written into arrays of its own, since the old
ones belong to the caller.
"""

from numba import njit

from step_methods.kernels.restricted.rbm import (
    energy,
    free_energy,
    sweep,
    sweep_forced,
    update_hidden,
    update_hidden_forced,
    update_visible,
    update_visible_forced,
)
from step_methods.kernels.vectors.jit import kernel

__all__ = ["FORCED", "count_changes", "draw_hidden", "draw_joint", "draw_layers", "draw_marginal", "draw_visible"]


@njit
def count_changes(old, new):
    """Count the units that differ."""
    n_changed = 0
    for i in range(new.size):
        n_changed += old[i] != new[i]
    return n_changed


@kernel
def draw_joint(rbm, v_old, v, h_old, h, n_sweeps, stream):
    """Draw both layers.

    Parameters
    ----------
    rbm : tuple
        From `step_methods.kernels.restricted.rbm.prepare`.
    v_old, h_old : ndarray of int, shapes (n_visible,) and (n_hidden,)
        The current state.
    v, h : ndarray of int, same shapes
        Become the draw.
    n_sweeps : int
        Sweeps from the current state to the draw.
    stream : ndarray
        From `step_methods.kernels.vectors.random.seed_stream`; advanced in place.

    Returns
    -------
    energy : float
        E(v, h) of the draw.
    n_changed : int
        Number of units in which the draw differs from the current state.
    """
    v[:] = v_old
    h[:] = h_old
    sweep(rbm, v, h, n_sweeps, stream)
    return energy(rbm, v, h), count_changes(v_old, v) + count_changes(h_old, h)


@kernel
def draw_layers(rbm, v_old, v, h_old, h, picks, stream):
    """Draw layers in the order of `picks`: the hidden one for a 0, the visible one for a 1; otherwise `draw_joint`."""
    v[:] = v_old
    h[:] = h_old
    for layer in picks:
        if layer == 0:
            update_hidden(rbm, v, h, stream)
        else:
            update_visible(rbm, v, h, stream)
    return energy(rbm, v, h), count_changes(v_old, v) + count_changes(h_old, h)


@kernel
def draw_marginal(rbm, v_old, v, h_old, h, n_sweeps, stream):
    """Draw the visible layer, the hidden one summed out: `h` is scratch, and the energy is the free energy F(v)."""
    v[:] = v_old
    sweep(rbm, v, h, n_sweeps, stream)
    return free_energy(rbm, v), count_changes(v_old, v)


@kernel
def draw_visible(rbm, v_old, v, h_old, h, n_sweeps, stream):
    """Draw the visible layer given the hidden one: exact at once, so `n_sweeps` is not used."""
    update_visible(rbm, v, h_old, stream)
    return energy(rbm, v, h_old), count_changes(v_old, v)


@kernel
def draw_hidden(rbm, v_old, v, h_old, h, n_sweeps, stream):
    """Draw the hidden layer given the visible one: exact at once, so `n_sweeps` is not used."""
    update_hidden(rbm, v_old, h, stream)
    return energy(rbm, v_old, h), count_changes(h_old, h)


def _sweep_forced(rbm, v_old, v, h_old, h, n_sweeps, bits, probabilities):
    v[:] = v_old
    sweep_forced(rbm, v, h, n_sweeps, bits, probabilities)


def _update_visible_forced(rbm, v_old, v, h_old, h, n_sweeps, bits, probabilities):
    update_visible_forced(rbm, v, h_old, bits, probabilities)


def _update_hidden_forced(rbm, v_old, v, h_old, h, n_sweeps, bits, probabilities):
    update_hidden_forced(rbm, v_old, h, bits, probabilities)


def _layers_forced(rbm, v_old, v, h_old, h, picks, bits, probabilities):
    """`draw_layers` with forced decisions: see the conventions in `step_methods.kernels`."""
    v[:] = v_old
    h[:] = h_old
    first = 0
    for layer in picks:
        update = update_hidden_forced if layer == 0 else update_visible_forced
        first += update(rbm, v, h, bits[first:], probabilities[first:])
    return first


# The twins of the draws whose decisions are forced: `bits` and `probabilities` (see the conventions of the package)
# take the place of the stream.
FORCED = {
    "draw_joint": _sweep_forced,
    "draw_layers": _layers_forced,
    "draw_marginal": _sweep_forced,
    "draw_visible": _update_visible_forced,
    "draw_hidden": _update_hidden_forced,
}
