"""Checkpoints: one safetensors file whose header carries the rest of the state as JSON.

A training state is a nested structure of dicts and lists with arrays, numbers, strings, booleans
and None at its leaves. Arrays become the tensors of the file, everything else JSON in the file's
metadata, so both belong together by construction. The file is written beside its destination and
then renamed: whoever reads it, also after a kill -9 or a power cut, sees the previous checkpoint or
the new one, whole. A digest of the file's content tells whether a byte has changed since.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

FORMAT_VERSION = 2
_METADATA_KEY = "pm_neural"
_DIGEST_KEY = "sha256"
_TENSOR_KEY = "__tensor__"


def save_checkpoint(path: str | os.PathLike[str], *, kind: str, state: Any) -> None:
    """Write a checkpoint, atomically.

    Parameters
    ----------
    path : path-like
        A checkpoint that is there already is replaced.
    kind : str
        What the state belongs to, such as ``"RBM"``.
    state : nested dicts and lists of arrays, tensors and JSON values
    """
    path = Path(path)
    tensors: dict[str, np.ndarray] = {}
    document = json.dumps({"version": FORMAT_VERSION, "kind": kind, "state": _split(state, "state", tensors)})
    content = save(tensors, metadata={_METADATA_KEY: document, _DIGEST_KEY: _digest(document, tensors)})
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_checkpoint(path: str | os.PathLike[str], *, kind: str) -> Any:
    """Read what `save_checkpoint` wrote; tensors come back as NumPy arrays.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is cut short, damaged or no checkpoint, or of another version or kind.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at {os.fspath(path)!r}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        document = json.loads(metadata[_METADATA_KEY])
        found = document["version"], document["kind"]
        if found[0] == FORMAT_VERSION and metadata[_DIGEST_KEY] != _digest(metadata[_METADATA_KEY], tensors):
            raise ValueError("its content does not have the digest that was written with it")
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{os.fspath(path)!r} is cut short, damaged, or no checkpoint of pm_neural: {error}"
        ) from error
    if found != (FORMAT_VERSION, kind):
        raise ValueError(
            f"checkpoint {os.fspath(path)!r} is of version {found[0]} and holds a {found[1]}; "
            f"expected version {FORMAT_VERSION} and a {kind}"
        )
    return _join(document["state"], tensors)


class Loadable(Protocol):
    """What takes parameters and buffers by their names, as a torch module does."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...


def load_parameters(model: Loadable, arrays: Mapping[str, np.ndarray]) -> None:
    """Copy arrays that `load_checkpoint` has read into the parameters and buffers of `model`."""
    model.load_state_dict({name: torch.as_tensor(array) for name, array in arrays.items()})


def _digest(document: str, tensors: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 digest of all that a checkpoint holds, in hexadecimal digits."""
    digest = hashlib.sha256(document.encode())
    for name, array in sorted(tensors.items()):
        digest.update(repr((name, array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _split(value: Any, name: str, tensors: dict[str, np.ndarray]) -> Any:
    """Move the arrays in `value` to `tensors`, and leave their names in their places."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        tensors[name] = np.asarray(value, order="C")  # ascontiguousarray would turn a scalar into a vector
        return {_TENSOR_KEY: name}
    if isinstance(value, dict):
        return {key: _split(item, f"{name}.{key}", tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_split(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]
    return value


def _join(value: Any, tensors: dict[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        if _TENSOR_KEY in value:
            return tensors[value[_TENSOR_KEY]]
        return {key: _join(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_join(item, tensors) for item in value]
    return value
