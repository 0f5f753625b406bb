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


def test_draws_and_statistics_must_be_of_the_same_draws(bits):
    whole = tree({"v": bits(3)}, {"network_energy": bits().astype(float)})
    assert report(whole.isel(draw=slice(None, None, 2))) is not None
    halved = tree({"v": bits(3)[:, ::2]}, {"network_energy": bits().astype(float)})
    with pytest.raises(ValueError, match="same draws in posterior and sample_stats, got 100 and 200 along 'draw'"):
        report(halved)
    with pytest.raises(ValueError, match=r"idata\.posterior must have draws"):
        report(whole.isel(draw=slice(0)))


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


def starts(*hashes):
    """Give each chain the hash of its start, in every draw."""
    return np.repeat(np.array(hashes)[:, None], 200, axis=1)


def test_chains_that_began_in_the_same_state_are_named(bits):
    result = report(tree({"v": bits(10)}, {"start_hash": starts(-7, -7, -7, -7)}))
    assert result.n_starts == {"start_hash": 1}
    (complaint,) = result.complaints
    assert complaint.startswith("All 4 chains began in the same state (start_hash)")
    assert complaint in str(result)
    result = report(tree({"v": bits(10)}, {"start_hash": starts(-7, 3, -7, -7)}))
    assert (result.n_starts, result.complaints) == ({"start_hash": 2}, [])


def test_starts_of_several_step_methods_are_kept_apart(bits):
    hashes = np.stack([starts(1, 2, 3, 4), starts(5, 5, 5, 5)], axis=-1)
    result = report(tree({"v": bits(10)}, {"start_hash": hashes}))
    assert result.n_starts == {"start_hash[0]": 4, "start_hash[1]": 1}
    assert [complaint[:52] for complaint in result.complaints] == [
        "All 4 chains began in the same state (start_hash[1])"
    ]


def test_chains_of_two_units_may_share_a_start_by_chance(bits):
    v = bits(10)
    v[..., 2:] = 1  # as evidence may force them, at the start as well
    assert report(tree({"v": v}, {"start_hash": starts(7, 7, 7, 7)})).complaints == []


def test_one_chain_shares_its_start_with_nobody(bits):
    result = report(tree({"v": bits(10)[:1]}, {"start_hash": starts(7)}))
    assert not any("began in the same state" in complaint for complaint in result.complaints)


def test_units_that_differ_between_chains_are_named(bits):
    v = bits(4)
    v[1, :, 2] = 1 - (bits()[1] & bits()[1] & bits()[1])  # up with 7/8 in one chain
    v[..., 3] = np.array([0, 1, 0, 1])[:, None]
    result = report(tree({"v": v}))
    assert result.disagreeing_units == {"v": ["v[2]", "v[3]"]}
    assert "v: 2 of 4 units differ between the chains (R-hat above 1.05): v[2] v[3]" in result.complaints


def test_r_hat_of_functions_sees_what_no_unit_shows(rng):
    # In half of the chains units come in equal pairs, in the others in opposite ones: no unit tells.
    first = rng.integers(0, 2, size=(4, 1000, 5))
    v = np.concatenate([first, first], axis=2)
    v[2:, :, 5:] = 1 - first[2:]
    result = report(tree({"v": v}, {"network_energy": rng.normal(size=(4, 1000))}))
    assert result.disagreeing_units == {"v": []}
    assert result.overview.loc["v", "max r_hat"] < 1.02
    assert result.r_hat_functions["activity of v"] > 1.05
    assert result.r_hat_functions["energy"] < 1.02
    (complaint,) = result.complaints
    assert "activity of v" in complaint
    assert "energy" not in complaint


def test_r_hat_that_is_nan_is_named(bits, rng):
    x = rng.normal(size=(4, 200, 3))
    x[2, 5, 1] = np.nan
    result = report(tree({"x": x, "v": 0 * bits(2)}))
    assert result.nan_units == {"x": ["x[1]"], "v": []}
    (complaint,) = result.complaints
    assert complaint == "x: 1 of 3 units have no R-hat (NaN), which takes two chains and four draws: x[1]"
    assert report(tree({"v": bits(2)[:1]})).nan_units == {"v": ["v[0]", "v[1]"]}


def test_chains_that_mix_give_no_complaint(bits, rng):
    stats = {"network_energy": rng.normal(size=(4, 200)), "start_hash": starts(1, 2, 3, 4)}
    result = report(tree({"v": bits(8), "x": rng.normal(size=(4, 200))}, stats))
    assert result.complaints == []
    assert set(result.r_hat_functions) == {"energy", "activity of v", "first component of v"}
