"""Lattices: their bonds, their edges, products with a coupling, bad input."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pm_neural.distributions.lattice import lattice


@pytest.mark.parametrize("periodic", [False, True], ids=["open", "periodic"])
@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5)])
def test_bonds_are_those_of_a_grid_graph(shape, periodic):
    couplings = lattice(shape, periodic).couplings
    networkx = pytest.importorskip("networkx")
    graph = networkx.grid_graph(shape[::-1], periodic=periodic)
    expected = networkx.to_numpy_array(graph, nodelist=list(np.ndindex(shape)))
    np.testing.assert_array_equal(couplings.toarray(), expected)


def test_periodic_along_one_axis():
    couplings = lattice((3, 4), (False, True)).couplings.toarray().reshape(3, 4, 3, 4)
    assert couplings[0, 0, 0, 3] == 1
    assert couplings[0, 0, 2, 0] == 0
    assert couplings.sum() == 2 * (3 * 4 + 2 * 4)


def test_a_periodic_axis_of_two_sites_has_double_bonds():
    np.testing.assert_array_equal(lattice(2, periodic=True).couplings.toarray(), [[0, 2], [2, 0]])
    np.testing.assert_array_equal(lattice(2).couplings.toarray(), [[0, 1], [1, 0]])
    assert (lattice((2, 2, 2), periodic=True).couplings.sum(axis=1) == 6).all()


@pytest.mark.parametrize("periodic", [False, True])
def test_an_axis_of_one_site_has_no_bonds(periodic):
    assert lattice((1, 1), periodic).couplings.nnz == 0
    np.testing.assert_array_equal(
        lattice((1, 5), periodic).couplings.toarray(), lattice(5, periodic).couplings.toarray()
    )


def test_products():
    chain = lattice(4)
    beta = pt.dscalar("beta")
    assert (2 * chain).coupling == (chain * 2).coupling == (np.float64(2) * chain).coupling == 2
    assert (3 * (2 * chain)).coupling == 6
    for product in (beta * chain, chain * beta, 1.0 * (chain * beta)):
        assert pytensor.function([beta], product.coupling, mode="FAST_COMPILE")(0.5) == 0.5
    np.testing.assert_array_equal((np.array([1.0, 2.0]) * chain).coupling, [1, 2])
    assert chain.coupling == 1


def test_product_with_something_else():
    with pytest.raises(TypeError, match="unsupported operand"):
        lattice(3) * {}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (((3, 0),), ValueError, "shape must have lengths of at least 1"),
        (((),), ValueError, "shape must have lengths of at least 1"),
        (((3, 2.5),), TypeError, "shape must be integers"),
        ((True,), TypeError, "shape must be integers"),
        (((3, 3), (True,)), ValueError, "periodic must have 2 entries, one for each axis of the shape, got 1"),
        (((3, 3), "yes"), TypeError, "periodic must be True or False"),
        (((3, 3), 1), TypeError, "periodic must be True or False"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        lattice(*arguments)
