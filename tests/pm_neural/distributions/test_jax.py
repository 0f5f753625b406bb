"""What JAX is told of our operations; JAX itself need not be there."""

import sys
from functools import singledispatch
from types import ModuleType

import numpy as np
import pymc as pm
import pytest
from pytensor.compile.mode import JAX
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.op import Op

import pm_neural as pmn


@pytest.fixture
def jax_funcify(monkeypatch):
    """Stand in for PyTensor's JAX backend as far as our registration sees it."""

    @singledispatch
    def jax_funcify(op, node=None, **kwargs):
        return "converted"

    dispatch = ModuleType("pytensor.link.jax.dispatch")
    dispatch.jax_funcify = jax_funcify
    monkeypatch.setitem(sys.modules, "pytensor.link.jax.dispatch", dispatch)
    return jax_funcify


def test_jax_refuses_our_operations_and_names_the_way_out(jax_funcify):
    with pm.Model() as model:
        c = pm.HalfNormal("c")
        pmn.Ising("s", pmn.lattice((3, 3)), coupling=c, normalize="exact", observed=np.ones((3, 3), int))
        pm.Normal("y", c, 1, observed=0.3)
    logp = model.logp()
    graph = FunctionGraph(outputs=[logp], clone=True)
    # PyMC rewrites a model's graph for JAX before it converts it.
    JAX.optimizer.rewrite(graph)
    ops = [getattr(node.op, "core_op", node.op) for node in graph.apply_nodes]
    ours = [op for op in ops if type(op).__module__.startswith("pm_neural")]
    assert {type(op).__name__ for op in ours} >= {"EliminationLogPartition"}
    for op in ours:
        with pytest.raises(NotImplementedError, match=r"cannot run in JAX.*nuts_sampler='pymc'.*'nutpie'"):
            jax_funcify(op)
    others = [op for op in ops if op not in ours]
    assert others
    assert {jax_funcify(op) for op in others} == {"converted"}
    assert all(isinstance(op, Op) for op in others)


def test_a_model_does_not_load_jax():
    with pm.Model() as model:
        pmn.Ising("s", pmn.lattice((2, 2)), coupling=0.3)
    model.logp()
    assert "pm_neural.distributions._jax" not in sys.modules
