"""Exact enumeration, partition functions, likelihoods, transition matrices, and a report on chains of binary units."""

from pm_neural.diagnostics.certificate import Certificate, TransitionMatrix, certify, transition_matrix
from pm_neural.diagnostics.conditionals import ConditionalsCheck, check_conditionals
from pm_neural.diagnostics.divergences import (
    Divergence,
    StateProbabilities,
    exact_state_probabilities,
    kl_divergence,
    state_probabilities,
    total_variation_distance,
)
from pm_neural.diagnostics.enumeration import ExactMarginals, enumerate_states, exact_marginals
from pm_neural.diagnostics.markov import (
    detailed_balance_gap,
    is_aperiodic,
    is_irreducible,
    relaxation_time,
    spectral_gap,
    stationary_distribution,
    total_variation,
)
from pm_neural.diagnostics.partition import (
    LogLikelihood,
    LogPartition,
    log_likelihood,
    log_partition,
)
from pm_neural.diagnostics.report import Report, ShortChains, report
from pm_neural.diagnostics.spikes import SpikeRaster, spike_raster

__all__ = [
    "Certificate",
    "ConditionalsCheck",
    "Divergence",
    "ExactMarginals",
    "LogLikelihood",
    "LogPartition",
    "Report",
    "ShortChains",
    "SpikeRaster",
    "StateProbabilities",
    "TransitionMatrix",
    "certify",
    "check_conditionals",
    "detailed_balance_gap",
    "enumerate_states",
    "exact_marginals",
    "exact_state_probabilities",
    "is_aperiodic",
    "is_irreducible",
    "kl_divergence",
    "log_likelihood",
    "log_partition",
    "relaxation_time",
    "report",
    "spectral_gap",
    "spike_raster",
    "state_probabilities",
    "stationary_distribution",
    "total_variation",
    "total_variation_distance",
    "transition_matrix",
]
