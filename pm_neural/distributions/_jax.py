"""Tell PyTensor's JAX backend that it has none of our operations."""

from __future__ import annotations

from typing import Any, NoReturn

from pytensor.link.jax.dispatch import jax_funcify

from pm_neural.distributions._compiled_op import CompiledOp

__all__: list[str] = []


@jax_funcify.register(CompiledOp)
def _refuse(op: Any, node: Any = None, **kwargs: Any) -> NoReturn:
    raise NotImplementedError(
        f"{type(op).__name__} of pm_neural cannot run in JAX, so that nuts_sampler='numpyro' and 'blackjax' cannot "
        "sample this model. Sample it with PyMC's own NUTS, nuts_sampler='pymc', or with nuts_sampler='nutpie'"
    )
