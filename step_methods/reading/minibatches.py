"""Terms of a model that see a minibatch of their data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pymc.data import MinibatchOp
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.traversal import ancestors

__all__ = ["check_full_data"]


def check_full_data(terms: Sequence[Variable]) -> None:
    """Raise if a random variable or potential sees a minibatch of its data.

    Raises
    ------
    ValueError
    """
    for term in terms:
        if any(isinstance(node.op, MinibatchOp) for node in _nodes(term)):
            raise ValueError(
                f"the term {term.name!r} of the model sees a minibatch of its data: this step method needs all of them"
            )


def _nodes(variable: Variable) -> Iterator[Apply]:
    """Yield the nodes that a term is made of, its data included."""
    parts = [variable, getattr(variable.tag, "observations", variable)]
    yield from (part.owner for part in ancestors(parts) if part.owner is not None)
