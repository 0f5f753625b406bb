"""What a normalizer is, and which one is taken."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pytensor.tensor import TensorVariable

__all__ = ["UNSAID", "Normalize", "Normalizer", "choose_normalizer"]

type Normalize = Literal["exact", "enumerate", "transfer", "kaufman"] | Normalizer | None

# The default of an argument that must be given.
UNSAID: Any = object()


class Normalizer(ABC):
    """A way to compute the log partition function of a network, with its gradient.

    A distribution holds one as a property of its operation, so that normalizers are compared (`==`, `hash`) by what
    they compute, and can be pickled: a frozen dataclass is and does that.

    Attributes
    ----------
    needs : str
        What must hold for it to apply, as the end of a sentence that begins with its name; for errors.
    """

    needs: ClassVar[str]

    @abstractmethod
    def obstacle(self, network: Any) -> str | None:
        """Say why it does not apply to a network.

        Parameters
        ----------
        network : Field, RestrictedNetwork or GaussianRestrictedNetwork
            Of a `BoltzmannMachine` or an `Ising` model, a `BernoulliRBM` and a `GaussianRBM`; its parameters are
            symbolic.

        Returns
        -------
        str or None
            What the network has in the place of what is needed; None if it applies.
        """

    @abstractmethod
    def log_partition(self, network: Any) -> TensorVariable:
        """Return log Z, differentiable in the parameters; it has the batch axes of the parameters."""

    def normalized(self, logp: TensorVariable, network: Any) -> TensorVariable:
        """Return a log-probability less log Z.

        To be overridden where only the values of the parameters tell whether `log_partition` is right: with
        `pymc.distributions.dist_math.check_parameters`.
        """
        return logp - self.log_partition(network)


def choose_normalizer(
    distribution: str,
    normalize: Normalize,
    network: Any,
    named: Mapping[str, Normalizer],
    exact: Sequence[tuple[str, Normalizer]],
) -> Normalizer | None:
    """Decide how to compute log Z, or refuse.

    Parameters
    ----------
    distribution : str
        Its name, for errors.
    normalize : None, str or Normalizer
        A name, or "exact" for the first that applies.
    network : Field, RestrictedNetwork or GaussianRestrictedNetwork
    named : mapping of str to Normalizer
        What can be chosen by name.
    exact : sequence of (str, Normalizer)
        What "exact" tries, and what each is called.

    Returns
    -------
    Normalizer or None
        None if log Z is left out.

    Raises
    ------
    TypeError
        If `normalize` is left unsaid.
    ValueError
        If `normalize` is unknown, or if the normalizer, or none, applies to the network.
    """
    if normalize is UNSAID:
        raise TypeError(
            f'{distribution}.dist() needs normalize=None or normalize="exact" said explicitly: inside a mixture '
            "a missing normalizer gives wrong weights even with fixed parameters"
        )
    if normalize is None:
        return None
    if isinstance(normalize, Normalizer):
        candidates: Sequence[tuple[str, Normalizer]] = [(type(normalize).__name__, normalize)]
        said = type(normalize).__name__
    elif isinstance(normalize, str) and normalize in {"exact", *named}:
        candidates = exact if normalize == "exact" else [(normalize, named[normalize])]
        said = f'"{normalize}"'
    else:
        choices = ", ".join(["None", *(f'"{name}"' for name in named)])
        raise ValueError(f'normalize must be {choices} or "exact", or a Normalizer, got {normalize!r}')
    obstacles = {}
    for name, normalizer in candidates:
        obstacle = normalizer.obstacle(network)
        if obstacle is None:
            return normalizer
        obstacles[name] = f"{normalizer.needs}{', ' if len(candidates) > 1 else '; '}got {obstacle}"
    if len(obstacles) == 1:
        raise ValueError(f"normalize={said} {next(iter(obstacles.values()))}")
    reasons = "; ".join(f'"{name}" {obstacles[name]}' for name in named if name in obstacles)
    raise ValueError(f"normalize={said}: no method applies to this field: {reasons}")
