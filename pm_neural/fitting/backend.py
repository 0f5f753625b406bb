"""The array operations that training and sampling need, on the CPU and on other devices.

The algorithms of training (contrastive divergence, parallel tempering, their gradients) are written
once, with the operators that NumPy arrays and torch tensors share and the few methods
collected here. On the CPU they run on NumPy views of the torch parameters: BLAS for the matrix
products, and one fused numba pass for sigmoid, random number and comparison, which is several times
faster than torch there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn import functional

from step_methods.kernels.restricted.gaussian_chains import sample_gaussian_units
from step_methods.kernels.restricted.layers import (
    sample_units,
    sample_units_with_mean,
    sigmoid_units,
    softplus_sums,
)
from step_methods.kernels.vectors.random import fill_uniform, seed_stream

Array = Any  # a NumPy array or a torch tensor, as the backend has it


class Backend(Protocol):
    """Array operations on one device, and the stream of random numbers that they use."""

    def view(self, tensor: torch.Tensor) -> Array:
        """Share the memory of a detached `tensor` as an array of this backend."""

    def tensor(self, array: Array) -> torch.Tensor:
        """Share the memory of an `array` of this backend as a tensor."""

    def array(self, values: np.ndarray) -> Array:
        """Copy NumPy `values` to an array of this backend; floats take the backend's dtype."""

    def floats(self, values: np.ndarray) -> Array:
        """Copy NumPy numbers of any type to a float array of this backend."""

    def empty(self, *shape: int) -> Array:
        """Make an uninitialized float array."""

    def matmul(self, x: Array, y: Array, *, out: Array) -> Array:
        """Write the matrix product of `x` and `y` into `out`."""

    def where(self, condition: Array, x: Array, y: Array) -> Array:
        """Choose from `x` where `condition` holds, from `y` elsewhere."""

    def exp(self, x: Array) -> Array:
        """Exponentiate every element."""

    def uniform(self, n: int) -> Array:
        """Draw `n` numbers from [0, 1)."""

    def mean(self, field: Array, *, out: Array) -> None:
        """Write sigmoid(field) into `out`, which may be `field`."""

    def softplus_sums(self, field: Array, *, out: Array) -> None:
        """Write the sum of log(1 + exp(field)) over each row of `field` into `out`."""

    def sample(self, field: Array, *, out: Array) -> None:
        """Write 1 with probability sigmoid(field), else 0, into `out`, which may be `field`."""

    def sample_with_mean(self, field: Array, *, out: Array, mean: Array) -> None:
        """Do both at once; `mean` may be `field`."""

    def sample_normal(self, offset: Array, *, mean: Array, sd: Array) -> None:
        """Turn every `offset` from the `mean` of its column into a draw from a normal distribution, in place."""

    def random_state(self) -> dict[str, Any]:
        """Return the stream of random numbers, by reference."""

    def set_random_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint holds: the same, with NumPy arrays."""


class NumPyBackend:
    """CPU: views of the parameters, BLAS, and the fused numba passes of `step_methods.kernels`."""

    def __init__(self, dtype: torch.dtype, rng: np.random.Generator) -> None:
        self._dtype = torch.empty(0, dtype=dtype).numpy().dtype
        self._stream = seed_stream(rng)

    matmul = staticmethod(np.dot)  # the same for matrices, and quicker to call
    where = staticmethod(np.where)
    exp = staticmethod(np.exp)

    def view(self, tensor: torch.Tensor) -> np.ndarray:
        return tensor.detach().numpy()

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array)

    def array(self, values: np.ndarray) -> np.ndarray:
        dtype = self._dtype if values.dtype.kind == "f" else values.dtype
        return np.array(values, dtype=dtype, order="C")

    def floats(self, values: np.ndarray) -> np.ndarray:
        return np.array(values, dtype=self._dtype, order="C")

    def empty(self, *shape: int) -> np.ndarray:
        return np.empty(shape, dtype=self._dtype)

    def uniform(self, n: int) -> np.ndarray:
        out = self.empty(n)
        fill_uniform(self._stream, out)
        return out

    def mean(self, field: np.ndarray, *, out: np.ndarray) -> None:
        sigmoid_units(field, out)

    def softplus_sums(self, field: np.ndarray, *, out: np.ndarray) -> None:
        softplus_sums(np.ascontiguousarray(field), out)  # fields that are sums with W have the order of W

    def sample(self, field: np.ndarray, *, out: np.ndarray) -> None:
        sample_units(field, self._stream, out)

    def sample_with_mean(self, field: np.ndarray, *, out: np.ndarray, mean: np.ndarray) -> None:
        sample_units_with_mean(field, self._stream, out, mean)

    def sample_normal(self, offset: np.ndarray, *, mean: np.ndarray, sd: np.ndarray) -> None:
        sample_gaussian_units(offset, mean, sd, self._stream, offset)

    def random_state(self) -> dict[str, Any]:
        return {"stream": self._stream.copy()}

    def set_random_state(self, state: Mapping[str, Any]) -> None:
        self._stream[...] = state["stream"]


class TorchBackend:
    """Any torch device: the same operations, and random numbers, by torch."""

    def __init__(self, dtype: torch.dtype, rng: np.random.Generator, device: torch.device | str) -> None:
        self._options: dict[str, Any] = {"dtype": dtype, "device": torch.device(device)}
        self._generator = torch.Generator(device)
        self._generator.manual_seed(int(rng.integers(2**63)))

    matmul = staticmethod(torch.matmul)
    exp = staticmethod(torch.exp)

    def where(self, condition: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.where(condition, x, y)

    def view(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach()

    def tensor(self, array: torch.Tensor) -> torch.Tensor:
        return array

    def array(self, values: np.ndarray) -> torch.Tensor:
        dtype = self._options["dtype"] if values.dtype.kind == "f" else None
        return torch.tensor(values, dtype=dtype, device=self._options["device"])

    def floats(self, values: np.ndarray) -> torch.Tensor:
        dtype = np.float64 if self._options["dtype"] == torch.float64 else np.float32
        return torch.as_tensor(np.array(values, dtype=dtype, order="C"), **self._options)

    def empty(self, *shape: int) -> torch.Tensor:
        return torch.empty(shape, **self._options)

    def uniform(self, n: int) -> torch.Tensor:
        return torch.rand(n, generator=self._generator, **self._options)

    def mean(self, field: torch.Tensor, *, out: torch.Tensor) -> None:
        torch.sigmoid(field, out=out)

    def softplus_sums(self, field: torch.Tensor, *, out: torch.Tensor) -> None:
        torch.sum(functional.softplus(field), dim=-1, out=out)

    def sample(self, field: torch.Tensor, *, out: torch.Tensor) -> None:
        torch.bernoulli(torch.sigmoid(field), generator=self._generator, out=out)

    def sample_with_mean(self, field: torch.Tensor, *, out: torch.Tensor, mean: torch.Tensor) -> None:
        torch.sigmoid(field, out=mean)
        torch.bernoulli(mean, generator=self._generator, out=out)

    def sample_normal(self, offset: torch.Tensor, *, mean: torch.Tensor, sd: torch.Tensor) -> None:
        self.add_noise(offset, sd)
        offset += mean

    def add_noise(self, x: torch.Tensor, sd: torch.Tensor | float) -> None:
        """Add a draw from N(0, `sd`²) to every element of `x`, in place."""
        x += sd * self.normal(*x.shape)

    def normal(self, *shape: int) -> torch.Tensor:
        """Draw numbers from N(0, 1)."""
        return torch.randn(shape, generator=self._generator, **self._options)

    def random_state(self) -> dict[str, Any]:
        return {"generator": self._generator.get_state()}

    def set_random_state(self, state: Mapping[str, Any]) -> None:
        self._generator.set_state(torch.as_tensor(state["generator"]))


def backend_for(parameter: torch.Tensor, rng: np.random.Generator) -> Backend:
    """Choose the backend for the device and dtype of a `parameter`, seeded from `rng`."""
    if parameter.device.type == "cpu":
        return NumPyBackend(parameter.dtype, rng)
    return TorchBackend(parameter.dtype, rng, parameter.device)
