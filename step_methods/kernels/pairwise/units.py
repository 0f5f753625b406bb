"""What the kernels of pairwise networks have in common.

A sweep and an energy both run over all fields. What is done with them is chosen by the type of `source`, when a kernel
is compiled: draw, take forced decisions, or add up the energy.
"""

from typing import Any, NamedTuple

from numba.extending import overload

from step_methods.kernels.vectors.simd import choose, total
from step_methods.kernels.vectors.units import decide

# mypy: disable-error-code="no-untyped-def"


class Energy(NamedTuple):
    """Leaves the units as they are and subtracts the fields of those that are 1.

    With fields u = bias + scale/2 J z, in which each coupling counts half, what is subtracted from zero adds up to the
    energy of the state.
    """

    energy: Any


def renew(field, old, source, index, count):
    """New values of a vector of units, as `units.decide` returns them.

    Parameters
    ----------
    field : Vector
        The fields; -inf in lanes that are no units.
    old : mask
        The present values.
    source, index, count
        As in `units.decide`, or an `Energy` as source.
    """
    raise NotImplementedError


@overload(renew, jit_options={"forceinline": True})
def _renew(field, old, source, index, count):
    if source.instance_class is Energy:
        return _add_energy
    return lambda field, old, source, index, count: decide(field, source, index, count)


def _add_energy(field, old, source, index, count):
    return old, Energy(source.energy - total(choose(old, field, 0.0)))
