"""Operations that carry their compiled forms."""

import subprocess
import sys

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from numba import njit
from pytensor.graph.basic import Apply

from pm_neural.distributions import _compiled_op
from pm_neural.distributions._compiled_op import CompiledOp, CompiledRV


class Twice(CompiledOp):
    """An operation of others, in one class."""

    __props__ = ("large",)

    def __init__(self, large=0):
        super().__init__()
        self.large = large

    def make_node(self, x):
        x = pt.as_tensor(x)
        return Apply(self, [x], [x.type()])

    def perform(self, node, inputs, output_storage):
        output_storage[0][0] = 2 * inputs[0]

    def numba_function(self, node):
        @njit
        def twice(x):
            return 2 * x

        return twice

    def compiled_in(self):
        return None if self.large < 0 else (np.zeros(self.large),)


class Dice(CompiledRV):
    name = "dice"
    signature = "()->()"
    dtype = "int64"

    def rng_fn(self, rng, sides, size):
        return rng.integers(1, sides + 1, size)

    def numba_draw(self, node):
        @njit
        def throw(rng, sides):
            return np.int64(rng.random() * sides) + 1

        return throw


@pytest.mark.parametrize("mode", ["NUMBA", "FAST_COMPILE"])
def test_both_backends_run_an_operation_of_others(mode):
    x = pt.vector("x")
    np.testing.assert_array_equal(pytensor.function([x], Twice()(x), mode=mode)(np.arange(3.0)), [0, 2, 4])


@pytest.mark.parametrize("mode", ["NUMBA", "FAST_COMPILE"])
def test_both_backends_draw_a_variable_of_others(mode):
    rng = pytensor.shared(np.random.default_rng(1))
    draws = pytensor.function([], Dice()(6, size=2000, rng=rng, return_next_rng=True)[1], mode=mode)()
    assert set(np.unique(draws)) == set(range(1, 7))


def key_of(op):
    return _compiled_op._numba_function_and_key(op, op.make_node(pt.vector()))[1]


def test_keys_tell_properties_types_and_sources_apart(monkeypatch):
    key = key_of(Twice())
    assert key == key_of(Twice())
    assert key != key_of(Twice(1))
    assert key != _compiled_op._numba_function_and_key(Twice(), Twice().make_node(pt.fvector()))[1]
    monkeypatch.setattr(_compiled_op, "_sources_version", lambda file: 1)
    assert key != key_of(Twice())


def test_what_cannot_be_kept_on_disk_has_no_key():
    assert key_of(Twice(-1)) is None
    assert key_of(Twice(10**6)) is None  # a large array is referred to in memory

    class InASession(Twice):
        __module__ = "__main__"

    InASession.__module__ = "no_such_file"
    assert key_of(InASession()) is None


def test_a_model_loads_the_backend_and_the_import_does_not():
    code = (
        "import sys, pm_neural as pmn\n"
        "backend = 'pytensor.link.numba.dispatch.basic'\n"
        "assert backend not in sys.modules\n"
        "pmn.Ising.dist([[0, 1], [1, 0]], normalize=None)\n"
        "assert backend in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
