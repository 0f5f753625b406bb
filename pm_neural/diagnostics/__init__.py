"""Exact enumeration, partition functions, likelihoods, and a report on chains of binary units."""

from pm_neural.diagnostics.enumeration import ExactMarginals, enumerate_states, exact_marginals
from pm_neural.diagnostics.partition import (
    LogLikelihood,
    LogPartition,
    log_likelihood,
    log_partition,
)
from pm_neural.diagnostics.report import Report, report

__all__ = [
    "ExactMarginals",
    "LogLikelihood",
    "LogPartition",
    "Report",
    "enumerate_states",
    "exact_marginals",
    "log_likelihood",
    "log_partition",
    "report",
]
