import warnings

import arviz as az
import numpy as np
import pymc as pm
import pytest
import xarray as xr

from pm_neural.diagnostics import report


def tree(posterior, sample_stats=None, **kwargs):
    groups = {"posterior": posterior}
    if sample_stats is not None:
        groups["sample_stats"] = sample_stats
    return az.from_dict(groups, **kwargs)


@pytest.fixture
def bits(rng):
    """Draw 4 chains of 200 independent draws of fair bits."""
    return lambda *shape: rng.integers(0, 2, size=(4, 200, *shape))


def test_units_that_never_changed_are_named(bits):
    v = bits(6)
    v[..., 1] = 0
    v[..., 4] = 1
    result = report(tree({"v": v}))
    assert result.frozen_units == {"v": ["v[1]", "v[4]"]}
    assert result.stuck_units == {"v": []}
    assert "v: 2 of 6 units never changed, so that R-hat is silent on them: v[1] v[4]" in str(result)
    assert result.summary.loc[result.frozen_units["v"], "r_hat"].isna().all()


def test_units_stuck_within_a_chain_are_named(bits):
    v = bits(4)
    v[0, :, 1] = 0  # one chain stuck
    v[..., 2] = np.array([0, 1, 0, 1])[:, None]  # each chain stuck at a value of its own
    result = report(tree({"v": v}))
    assert result.frozen_units == {"v": []}
    assert result.stuck_units == {"v": ["v[1]", "v[2]"]}
    assert "v: 2 of 4 units did not change in at least one chain: v[1] v[2]" in str(result)


def test_a_change_in_the_last_draw_is_a_change(bits):
    v = bits(2)
    v[..., 0] = 0
    v[3, -1, 0] = 1
    result = report(tree({"v": v}))
    assert result.frozen_units == {"v": []}
    assert result.stuck_units == {"v": ["v[0]"]}


def test_units_are_named_by_their_coordinates_as_in_the_summary(bits):
    z = bits(2, 3)
    z[..., 1, 2] = 1
    idata = tree({"z": z}, coords={"row": ["top", "low"], "col": [3, 5, 7]}, dims={"z": ["row", "col"]})
    result = report(idata)
    assert result.frozen_units == {"z": ["z[low, 7]"]}
    assert result.summary.loc["z[low, 7]", "mean"] == 1


def test_overview_takes_the_worst_unit_that_changed(bits, rng):
    v = bits(5)
    v[..., 0] = 1
    v[..., 2] = np.repeat(bits()[:, ::10], 10, axis=1)  # a slow unit
    idata = tree({"v": v, "flip": rng.normal(size=(4, 200))})
    row = report(idata).overview.loc["v"]
    changed = az.summary(tree({"v": v[..., 1:]}), round_to="none")
    assert row["units"] == 5
    assert row["max r_hat"] == changed["r_hat"].max()
    assert row["min ess_bulk"] == changed["ess_bulk"].min() == changed.loc["v[1]", "ess_bulk"]
    assert row["min ess_tail"] == changed["ess_tail"].min()


def test_slow_total_activity_shows_though_every_unit_mixes(rng):
    # Two modes, all units up or all down with 90 %, switching every 40 draws.
    mode = np.repeat(rng.integers(0, 2, size=(4, 5)), 40, axis=1)
    v = np.where(rng.random((4, 200, 50)) < 0.6, mode[..., None], rng.integers(0, 2, (4, 200, 50)))
    v = v.astype(np.int8)
    result = report(tree({"v": v}))
    activity = v.sum(axis=2, dtype=int)
    expected = float(az.ess(tree({"x": activity}))["x"])
    assert result.overview.loc["v", "ess activity"] == expected
    assert expected < 40


def test_activity_of_many_small_integers_does_not_overflow(bits):
    # 127 units of 254 are up on average: a sum in int8 would wrap around in every other draw.
    v = bits(254)
    small, large = (report(tree({"v": v.astype(dtype)})) for dtype in (np.int8, np.int64))
    assert small.overview.loc["v", "ess activity"] == large.overview.loc["v", "ess activity"]


def test_scalars_and_continuous_variables_have_no_activity(bits, rng):
    result = report(tree({"k": bits(), "x": rng.normal(size=(4, 200, 3))}))
    assert result.overview["ess activity"].isna().all()
    assert result.frozen_units == {"k": [], "x": []}


def test_frozen_network_has_no_activity_either(bits):
    result = report(tree({"v": 0 * bits(3)}))
    row = result.overview.loc["v"].drop("units")
    assert row.isna().all()
    assert result.frozen_units == {"v": ["v[0]", "v[1]", "v[2]"]}


def test_ess_of_the_energy(bits, rng):
    energy = rng.normal(size=(4, 200)).cumsum(axis=1)
    result = report(tree({"v": bits(2)}, {"network_energy": energy}))
    assert list(result.ess_energy) == ["energy"]
    assert result.ess_energy["energy"] == float(az.ess(tree({"x": energy}))["x"])
    assert f"ESS of energy: {result.ess_energy['energy']:.0f}" in str(result)


def test_energies_of_several_step_methods_are_kept_apart(bits, rng):
    result = report(tree({"v": bits(2)}, {"network_energy": rng.normal(size=(4, 200, 2))}))
    assert list(result.ess_energy) == ["energy[0]", "energy[1]"]


def test_without_an_energy_there_is_no_ess_of_it(bits):
    assert report(tree({"v": bits(2)})).ess_energy == {}
    assert report(tree({"v": bits(2)}, {"flip_rate": np.ones((4, 200))})).ess_energy == {}


def test_only_chosen_variables_are_reported(bits):
    idata = tree({"v": bits(2), "h": bits(3)})
    for names in ("h", ["h"]):
        result = report(idata, names)
        assert list(result.overview.index) == ["h"]
        assert list(result.summary.index) == ["h[0]", "h[1]", "h[2]"]


def test_clamped_units_are_told_from_frozen_ones(bits):
    free = bits(3)
    free[..., 2] = 0
    v = np.concatenate([np.ones((4, 200, 2), dtype=int), free], axis=2)
    idata = tree({"v_unobserved": free, "v": v})
    for names in (None, "v", ["v", "v_unobserved"]):
        result = report(idata, names)
        assert result.n_clamped == {"v": 2}
        assert result.frozen_units == {"v_unobserved": ["v_unobserved[2]"]}
        assert "v: 2 clamped units, which never change by design" in str(result)
    assert list(report(idata, "v").summary.index) == [f"v[{i}]" for i in range(5)]


def test_clamped_units_of_a_model_sampled_by_pymc():
    data = np.ma.masked_array([1, 0, 1, 0], mask=[0, 1, 1, 0])
    with pm.Model(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyMC announces that it imputes
        pm.Bernoulli("v", p=[0.5, 0.5, 1e-12, 0.5], observed=data)
        idata = pm.sample(
            draws=100,
            tune=10,
            chains=2,
            cores=1,
            random_seed=0,
            progressbar=False,
            compute_convergence_checks=False,
        )
    result = report(idata)
    assert result.n_clamped == {"v": 2}
    assert result.frozen_units == {"v_unobserved": ["v_unobserved[1]"]}
    assert (result.n_chains, result.n_draws) == (2, 100)


def test_booleans_become_integers(bits):
    result = report(tree({"v": bits(3) > 0}))
    assert result.overview.loc["v", "units"] == 3
    assert result.overview.loc["v", "ess activity"] > 100


def test_a_short_single_chain_still_gives_a_report(bits):
    result = report(tree({"v": bits(2)[:1, :3]}))
    assert (result.n_chains, result.n_draws) == (1, 3)
    assert "1 chains of 3 draws" in str(result)


def test_long_lists_are_shortened(bits):
    text = str(report(tree({"v": 0 * bits(30)})))
    assert "30 of 30 units" in text
    assert "v[19] …" in text
    assert "v[20]" not in text


def test_the_input_is_left_alone(bits):
    idata = tree({"v": bits(2) > 0})
    before = idata.copy(deep=True)
    report(idata)
    xr.testing.assert_identical(idata, before)


def test_bad_input_is_refused(bits):
    idata = tree({"v": bits(2)})
    with pytest.raises(TypeError, match=r"idata must be an xarray\.DataTree, got Dataset"):
        report(idata.posterior.to_dataset())
    with pytest.raises(ValueError, match="must have a group 'posterior', got the groups"):
        report(xr.DataTree.from_dict({"prior": idata.posterior.to_dataset()}))
    with pytest.raises(ValueError, match="must have the dims chain and draw, got"):
        report(xr.DataTree.from_dict({"posterior": xr.Dataset({"v": ("draw", [0, 1])})}))
    with pytest.raises(ValueError, match=r"var_names must name variables .*\['v'\], got 'w'"):
        report(idata, ["v", "w"])
