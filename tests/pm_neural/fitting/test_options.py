"""The arguments that every `fit` has beside its own: signatures, docstrings, misspelt names."""

import inspect
import re
from typing import Unpack

import pytest
import torch

from pm_neural.fitting.options import FitArguments, FitOptions, takes_fit_options
from pm_neural.spiking import SamplingNetwork
from pm_neural.training import RBM, VAE, EarlyStopping, EnergyNetwork, GaussianRBM

SHARED = {
    "learning_rate_schedule": "cosine",
    "validation_data": None,
    "early_stopping": None,
    "measure_every": None,
    "checkpoint": None,
    "checkpoint_every": 10,
    "resume": False,
    "progressbar": True,
    "random_seed": None,
}
OF_MACHINES = {
    "k": 1,
    "n_chains": None,
    "n_temperatures": None,
    "optimizer": "sgd",
    "learning_rate": None,
    "momentum": 0.0,
    "centered": True,
    "sparsity_target": None,
    "sparsity_cost": 0.1,
}
DEFAULTS = {
    RBM: {"epochs": 1000, "method": "pcd", "batch_size": 10, "weight_decay": 0.0015, **OF_MACHINES, **SHARED},
    GaussianRBM: {
        "epochs": 1000,
        "method": "cd",
        "batch_size": 50,
        "sigma_learning_rate": None,
        "max_gradient_norm": None,
        "weight_decay": 0.0,
        **OF_MACHINES,
        **SHARED,
    },
    VAE: {
        "epochs": 100,
        "batch_size": 32,
        "beta": 1.0,
        "warm_up": 0,
        "optimizer": torch.optim.Adam,
        "learning_rate": 2e-3,
        **SHARED,
    },
    EnergyNetwork: {
        "epochs": 1000,
        "n_steps": 20,
        "step_size": 0.01,
        "noise": None,
        "adjusted": True,
        "buffer_size": 5000,
        "reinitialized_fraction": 0.05,
        "n_chains": None,
        "batch_size": 100,
        "optimizer": torch.optim.Adam,
        "learning_rate": None,
        "energy_regularization": 0.0,
        "max_gradient_norm": None,
        **SHARED,
    },
    SamplingNetwork: {
        "epochs": 400,
        "n_steps": 1000,
        "n_chains": 32,
        "optimizer": torch.optim.Adam,
        "learning_rate": 0.01,
        "momentum": 0.0,
        **{name: default for name, default in SHARED.items() if name != "validation_data"},
    },
}
TRAINERS = pytest.mark.parametrize("trainer", DEFAULTS, ids=lambda trainer: trainer.__name__)


@TRAINERS
def test_signatures_show_all_arguments_with_their_defaults(trainer):
    _, data, *arguments = inspect.signature(trainer.fit).parameters.values()
    assert data.kind is data.POSITIONAL_OR_KEYWORD
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in arguments)
    assert {parameter.name: parameter.default for parameter in arguments} == DEFAULTS[trainer]
    assert all(isinstance(parameter.annotation, str) for parameter in arguments)


@TRAINERS
def test_docstrings_tell_of_each_argument_once(trainer):
    section = re.search(r"^Parameters\n-+\n(.*?)\n\n", inspect.getdoc(trainer.fit), re.MULTILINE | re.DOTALL)[1]
    told = [name for head in re.findall(r"^(\w[\w, ]*) : .", section, re.MULTILINE) for name in head.split(", ")]
    assert sorted(told[1:]) == sorted(DEFAULTS[trainer])
    texts = re.findall(r"^\w[\w, ]* : .*\n(?=    \S)", section, re.MULTILINE)
    assert len(texts) > len(DEFAULTS[trainer]) / 2


@pytest.mark.parametrize(
    ("misspelt", "meant"), [("epoch", "epochs"), ("learningrate", "learning_rate"), ("chains", "n_chains")]
)
def test_a_misspelt_argument_names_the_nearest(misspelt, meant):
    with pytest.raises(TypeError, match=rf"^RBM.fit\(\) got .* '{misspelt}'; did you mean '{meant}'\?$"):
        RBM(3, 2).fit([[0, 1, 1]], **{misspelt: 1})
    with pytest.raises(TypeError, match="did you mean 'n_chains'"):  # of validation_data it makes no use
        SamplingNetwork(n_neurons=2, n_inputs=8, n_readout=1).fit([0.5, 0.5], n_chain=2)
    with pytest.raises(TypeError, match="'batch_size'"):
        SamplingNetwork(n_neurons=2, n_inputs=8, n_readout=1).fit([0.5, 0.5], batch_size=2)


def test_a_function_without_a_docstring_stays_without_one():
    class Trainer:
        @takes_fit_options(epochs=3)
        def fit(self, X, *, own=1, **options: Unpack[FitArguments]):
            return X, own, FitOptions(**options)

    assert Trainer.fit.__doc__ is None
    assert list(inspect.signature(Trainer.fit).parameters)[:4] == ["self", "X", "own", "epochs"]
    assert Trainer().fit(1, own=2, batch_size=5) == (1, 2, FitOptions(epochs=3, batch_size=5))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs must be at least 1"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"measure_every": 0.5}, TypeError, "measure_every must be an integer"),
        ({"checkpoint_every": 0}, ValueError, "checkpoint_every must be at least 1"),
        ({"learning_rate_schedule": "step"}, ValueError, "learning_rate_schedule must be"),
        ({"resume": True}, ValueError, "needs the path of a checkpoint"),
        ({"checkpoint": "nowhere/x"}, FileNotFoundError, "there is no folder nowhere"),
        ({"early_stopping": 3}, TypeError, "must be an EarlyStopping; got 3"),
    ],
)
def test_bad_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        FitOptions(**options)


def test_early_stopping_needs_something_to_watch():
    options = FitOptions(early_stopping=EarlyStopping())
    with pytest.raises(ValueError, match="watches validation_data, and none were given"):
        options.check_watched()
