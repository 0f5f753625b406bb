"""Energies that a torch module computes, as PyMC distributions."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytensor
import pytensor.tensor as pt
from pymc.distributions.distribution import Distribution
from pymc.distributions.shape_utils import convert_dims, convert_shape, shape_from_dims
from pymc.distributions.transforms import _default_transform
from pymc.logprob.abstract import _logprob
from pymc.logprob.transforms import LogOddsTransform
from pymc.model import modelcontext
from pymc.pytensorf import extract_obs_data
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant, Variable
from pytensor.tensor import TensorVariable

from pm_neural.distributions._checks import binary_data
from pm_neural.distributions._compiled_op import CompiledRV
from pm_neural.distributions._units import on_support
from pm_neural.distributions.normalizers.normalizer import UNSAID
from pm_neural.distributions.torch_modules.op import TorchEnergy
from step_methods.network import is_binary_energy_op

if TYPE_CHECKING:
    from pm_neural.distributions.torch_modules.frozen_module import FrozenModule

__all__ = ["Energy"]


class EnergyRV(CompiledRV):
    """Points of any real value."""

    name = "Energy"
    dtype = "floatX"
    _print_name = ("Energy", "\\operatorname{Energy}")
    __props__ = (*CompiledRV.__props__, "module")

    def __init__(self, *, module: FrozenModule, **kwargs):
        axes = ",".join(f"axis_{i}" for i in range(len(module.event_shape)))
        kwargs.setdefault("signature", f"->({axes})")
        super().__init__(**kwargs)
        self.module = module

    def __str__(self):
        return f"{self.name}_rv{self.module.event_shape}"

    def _supp_shape_from_params(self, dist_params, param_shapes=None):
        return [pt.constant(length, dtype="int64") for length in self.module.event_shape]

    def rng_fn(self, rng, size):
        """Refuse to draw."""
        raise _no_draws()

    def numba_draw(self, node):
        """Refuse to draw."""
        raise _no_draws()


class UnitEnergyRV(EnergyRV):
    """Points in the unit cube."""

    name = "UnitEnergy"


class BinaryEnergyRV(EnergyRV):
    """Units in {0, 1}."""

    name = "BinaryEnergy"
    dtype = "int64"


def _no_draws() -> ValueError:
    """Return the error of a draw from an energy."""
    return ValueError(
        "an Energy has no draws of its own (pm.draw, prior predictive), only a density: sample it with pm.sample"
    )


class LogOddsOfPoints(LogOddsTransform):
    """Log-odds of all coordinates of a point, which has a number of axes."""

    def __init__(self, n_axes: int):
        self.ndim_supp = n_axes

    def log_jac_det(self, value, *inputs):
        """Sum the coordinates' own log Jacobians over a point."""
        return super().log_jac_det(value, *inputs).sum(axis=tuple(range(-self.ndim_supp, 0)))


@_default_transform.register(UnitEnergyRV)
def _unit_transform(op, rv):
    return LogOddsOfPoints(len(op.module.event_shape))


@is_binary_energy_op.register(BinaryEnergyRV)
def _is_binary_energy_op(op):
    return True


# The Op of a support, the value that a coordinate starts from, and another value to try the module with.
_SUPPORTS: dict[str, tuple[type[EnergyRV], float, float]] = {
    "real": (EnergyRV, 0.0, 1.0),
    "unit": (UnitEnergyRV, 0.5, 0.25),
    "binary": (BinaryEnergyRV, 0, 1),
}


class Energy(Distribution):
    r"""Points whose energy a torch module computes.

    .. math::

        \log p(x) = -E(x) + \text{const},

    E any module that maps (batch, ...) to (batch,), on its own device and in its own dtype. The constant is left out,
    so this is right for sampling x, and wrong in a mixture and in the comparison of models.

    Real and unit supports have gradients: NUTS samples them by default, `Langevin`, ``pm.Metropolis`` and others on
    request.

    Parameters
    ----------
    module : torch.nn.Module
        Maps points, a batch axis before those of one point, to their energies (batch,). The model keeps a copy, in
        evaluation mode and with its weights as they are: training the module later changes nothing here, declare the
        model anew.
    shape : int or tuple of int, optional
        Shape of the variable, unless `dims` or `observed` say it.
    support : {"real", "unit", "binary"}
        Any real numbers; numbers between 0 and 1, which are sampled through their log-odds; or 0 and 1 (int64). The
        log-probability is −inf elsewhere.
    event_ndim : int, optional
        Number of axes of one point. Leading axes beyond it are a batch of independent points. By default all axes are
        those of one point.

    Raises
    ------
    TypeError
        If `module` is not a torch module, if its parameters are not real floats, or if it returns no tensor.
    ValueError
        If the module returns the wrong shape; if its energy (or its gradient, unless the support is binary) is not
        finite at the start value, which is `initval` or else 0, 0.5 and 0 in the three supports; if the energy is
        random, or depends on the other points of the batch; if its parameters are on several devices or of several
        dtypes; if the shape is not given; if `support` or `event_ndim` is unknown or impossible; if `initval` or
        `observed` are off the support.
    ModuleNotFoundError
        If torch is not installed.

    Notes
    -----
    There are no draws without a chain: ``pm.draw`` and prior predictive sampling are refused.

    Masked data clamp coordinates: ``observed=np.ma.masked_array(values, mask=unknown)`` holds those where the mask is
    False, and the posterior is p(unknown | known).

    Where the energy is NaN the log-probability is, and step methods reject such a proposal. If the module raises an
    error, sampling stops with it; only in nutpie's threads the error is logged, and the energy is taken as NaN.

    In float32, torch's default, the log-density has a relative error of 1e-7 and a finite-difference check of its
    gradient fails; ``module.double()`` makes it exact. In the worker processes of ``pm.sample`` torch uses one thread.
    A module on a GPU needs ``mp_ctx="spawn"`` or ``cores=1``, as CUDA cannot be forked.

    Examples
    --------
    >>> import pymc as pm, torch, pm_neural as pmn
    >>> class Ring(torch.nn.Module):
    ...     def forward(self, x):
    ...         return (x.norm(dim=-1) - 1) ** 2 / 0.02
    >>> with pm.Model():
    ...     x = pmn.Energy("x", Ring(), shape=2, initval=[1.0, 0.0])
    ...     idata = pm.sample(100, tune=100, chains=2, cores=1, progressbar=False)
    """

    rv_type = EnergyRV

    def __new__(
        cls,
        name,
        module,
        *,
        shape=None,
        support: Literal["real", "unit", "binary"] = "real",
        event_ndim: int | None = None,
        dims=None,
        observed=None,
        initval=None,
        **kwargs,
    ):
        """Register the distribution as a variable of the current model."""
        if shape is None and dims is not None:
            shape = shape_from_dims(convert_dims(dims), modelcontext(None))
        elif shape is None and observed is not None:
            shape = np.shape(extract_obs_data(observed) if isinstance(observed, Variable) else observed)
        _check_support(support)
        event_shape = _event_shape(shape, event_ndim)
        if observed is not None:
            observed = _check_data(name, observed, support, event_shape, "observed")
        if initval is not None and not isinstance(initval, str | Variable):
            initval = _check_data(name, np.asarray(initval), support, (), "initval")
        return super().__new__(
            cls,
            name,
            _freeze(module, event_shape, support, initval),
            shape=shape,
            support=support,
            event_ndim=event_ndim,
            normalize=None,
            dims=dims,
            observed=observed,
            initval=initval,
            **kwargs,
        )

    @classmethod
    def dist(
        cls,
        module,
        *,
        shape=None,
        support: Literal["real", "unit", "binary"] = "real",
        event_ndim: int | None = None,
        normalize: None = UNSAID,
        **kwargs,
    ):
        """Make a variable that belongs to no model; ``normalize=None`` must be given."""
        if normalize is UNSAID or normalize is not None:
            raise TypeError(
                "Energy.dist() needs normalize=None said explicitly: its normalizer is not known, and inside a mixture "
                "a missing normalizer gives wrong weights"
            )
        _check_support(support)
        frozen = _freeze(module, _event_shape(shape, event_ndim), support, None)
        return super().dist([], shape=shape, module=frozen, support=support, **kwargs)

    @classmethod
    def rv_op(cls, *, module, support, size=None, rng=None):
        """Make the random variable."""
        if rng is None:
            rng = pt.random.shared_rng(seed=None)
        op = _SUPPORTS[support][0](module=module)
        return op(size=size, rng=rng, return_next_rng=True)[1]

    def support_point(rv, size):
        """Start in the middle of the support, or at 0."""
        start = next(start for op, start, _ in _SUPPORTS.values() if type(rv.owner.op) is op)
        return pt.full(rv.shape, start, dtype=rv.dtype)


def _check_support(support: Any) -> None:
    if support not in _SUPPORTS:
        raise ValueError(f"support must be one of {', '.join(map(repr, _SUPPORTS))}, got {support!r}")


def _event_shape(shape: Any, event_ndim: int | None) -> tuple[int, ...]:
    """Return the axes of one point."""
    if shape is None:
        raise ValueError("an Energy needs a shape (or dims): its module does not say how many coordinates a point has")
    lengths = [_known_length(length) for length in convert_shape(shape)]
    if event_ndim is None:
        event_ndim = len(lengths)
    elif isinstance(event_ndim, bool) or not isinstance(event_ndim, int | np.integer):
        raise TypeError(f"event_ndim must be an integer, the number of axes of one point, got {event_ndim!r}")
    if not 0 <= event_ndim <= len(lengths):
        raise ValueError(f"event_ndim must be between 0 and the {len(lengths)} axes of the shape, got {event_ndim}")
    event = lengths[len(lengths) - event_ndim :]
    event_shape = tuple(length for length in event if length is not None)
    if len(event_shape) < len(event):
        raise ValueError("the axes of one point must have known lengths, got a symbolic shape")
    return event_shape


def _known_length(length: Any) -> int | None:
    if isinstance(length, SharedVariable | Constant):
        return int(extract_obs_data(length))
    return None if isinstance(length, Variable) else int(length)


def _check_data(name: str, data: Any, support: str, event_shape: tuple[int, ...], what: str) -> Any:
    """Check that data or start values are on the support."""
    if support == "binary":
        return binary_data(name, data, event_shape, what)
    if not isinstance(data, Variable) and support == "unit":
        entries = np.ma.compressed(data) if isinstance(data, np.ma.MaskedArray) else np.asarray(data)
        wrong = entries[~((entries > 0) & (entries < 1))]
        if wrong.size:
            raise ValueError(f"{what} of {name!r} must be between 0 and 1, got {wrong.flat[0]}")
    return data


def _freeze(module: Any, event_shape: tuple[int, ...], support: str, initval: Any) -> FrozenModule:
    """Copy the module, and try the copy at the start value."""
    try:
        frozen_module = import_module("pm_neural.distributions.torch_modules.frozen_module")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"pmn.Energy needs {error.name}, which is not installed; it comes with the extra: "
            "pip install 'pm-neural[torch]'",
            name=error.name,
        ) from error
    if isinstance(module, frozen_module.FrozenModule):
        return module
    frozen = frozen_module.FrozenModule(module, event_shape, pytensor.config.floatX)
    _, start, other = _SUPPORTS[support]
    points = np.full(event_shape, start, pytensor.config.floatX)
    if initval is not None and not isinstance(initval, str | Variable):
        batch = np.broadcast_to(initval, np.broadcast_shapes(np.shape(initval), event_shape))
        points = batch.reshape(-1, *event_shape)[0].astype(pytensor.config.floatX)
    frozen.check(points, np.full_like(points, other), with_gradient=support != "binary")
    return frozen


@_logprob.register(EnergyRV)
def _energy_logprob(op, values, rng, size, **kwargs):
    (value,) = values
    return -_energy(op, value)


@_logprob.register(UnitEnergyRV)
def _unit_energy_logprob(op, values, rng, size, **kwargs):
    (value,) = values
    inside = pt.ge(value, 0) & pt.le(value, 1)
    return pt.switch(pt.all(inside, axis=_event_axes(op)), -_energy(op, value), -np.inf)


@_logprob.register(BinaryEnergyRV)
def _binary_energy_logprob(op, values, rng, size, **kwargs):
    (value,) = values
    return pt.switch(on_support(value, n_axes=len(_event_axes(op))), -_energy(op, value), -np.inf)


def _energy(op: EnergyRV, value: TensorVariable) -> TensorVariable:
    return TorchEnergy(op.module)(value.astype(pytensor.config.floatX))[0]


def _event_axes(op: EnergyRV) -> tuple[int, ...]:
    return tuple(range(-len(op.module.event_shape), 0))
