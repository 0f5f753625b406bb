import numpy as np
import pytest

from pm_neural.fitting.early_stopping import Stopper
from pm_neural.training import EarlyStopping


def looks_until_stop(rule: EarlyStopping, values: list[float]) -> tuple[int, list[int]]:
    """Return how many looks it took to stop, and which of them were within the tolerance."""
    stopper = Stopper(rule)
    within = []
    for look, value in enumerate(values):
        if stopper.within_tolerance(value):
            within.append(look)
        if stopper.should_stop:
            return look + 1, within
    return len(values), within


def test_stops_after_patience_looks_outside_the_tolerance():
    rule = EarlyStopping(tolerance=1.0, patience=3)
    assert looks_until_stop(rule, [0, 0.5, -1, 0.0, 0.1, 0.2, 0.3, 9]) == (7, [0, 1, 2, 3])


def test_one_look_back_inside_starts_the_count_anew():
    rule = EarlyStopping(tolerance=1.0, patience=2)
    assert looks_until_stop(rule, [0, 2, 1, 2, 0.5, 2, 2, 2]) == (7, [0, 2, 4])


def test_without_tolerance_only_new_bests_count():
    rule = EarlyStopping(tolerance=0.0, patience=2)
    assert looks_until_stop(rule, [3, 2, 2.5, 1, 1.5, 1.2]) == (6, [0, 1, 3])


def test_nan_is_outside():
    assert looks_until_stop(EarlyStopping(patience=1), [1.0, float("nan")]) == (2, [0])


def test_a_saved_stopper_goes_on():
    stopper, other = Stopper(EarlyStopping(patience=2)), Stopper(EarlyStopping(patience=2))
    for value in (0.0, 3.0):
        stopper.within_tolerance(value)
    other.load_state_dict(stopper.state_dict())
    other.within_tolerance(3.0)
    assert other.should_stop


@pytest.mark.parametrize("tolerance", [-0.1, np.nan])
def test_bad_rules_are_refused(tolerance):
    with pytest.raises(ValueError, match="tolerance must be"):
        EarlyStopping(tolerance=tolerance)
    with pytest.raises(ValueError, match="patience must be at least 1; got 0"):
        EarlyStopping(patience=0)
    with pytest.raises(TypeError, match="tolerance must be a number; got 'a'"):
        EarlyStopping(tolerance="a")
    with pytest.raises(TypeError, match=r"patience must be an integer; got 1\.5"):
        EarlyStopping(patience=1.5)
