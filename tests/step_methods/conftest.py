"""A small RBM, and the certificate that a step method is right."""

import pytest

from pm_neural.diagnostics import certify as certify_step


@pytest.fixture
def parameters(rng):
    return rng.normal(size=(4, 3)), rng.normal(size=4), rng.normal(size=3)


@pytest.fixture
def certify():
    """Check that a step leaves the exact law of its units invariant to 1e-12, and can reach all of them.

    The law comes from the model's own log-probability, the transition matrix from the kernel that the step runs.
    """

    def check(step, point):
        certificate = certify_step(step, point, tolerance=1e-12)
        assert certificate.passed, str(certificate)

    return check
