import json
import os

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from pm_neural.fitting.checkpoint import FORMAT_VERSION, _digest, load_checkpoint, save_checkpoint


@pytest.fixture
def state():
    return {
        "arrays": {"float": np.linspace(0, 1, 5, dtype=np.float32), "empty": np.empty((0, 3))},
        "stream": np.array([2**64 - 1, 1], dtype=np.uint64),
        "tensors": [torch.arange(4), torch.tensor(3.5, dtype=torch.float64)],
        "generator": np.random.default_rng(3).bit_generator.state,
        "plain": {"text": "δ", "none": None, "yes": True, "third": 1 / 3, "nan": float("nan")},
    }


def test_everything_comes_back(state, tmp_path):
    path = tmp_path / "state.safetensors"
    save_checkpoint(path, kind="test", state=state)
    loaded = load_checkpoint(path, kind="test")
    for name, array in state["arrays"].items():
        np.testing.assert_array_equal(loaded["arrays"][name], array, strict=True)
    np.testing.assert_array_equal(loaded["stream"], state["stream"], strict=True)
    np.testing.assert_array_equal(loaded["tensors"][0], [0, 1, 2, 3])
    np.testing.assert_array_equal(loaded["tensors"][1], np.float64(3.5), strict=True)
    assert loaded["generator"] == state["generator"]
    assert np.isnan(loaded["plain"].pop("nan"))
    del state["plain"]["nan"]
    assert loaded["plain"] == state["plain"]


def test_any_safetensors_reader_reads_the_arrays(state, tmp_path):
    path = tmp_path / "state.safetensors"
    save_checkpoint(path, kind="test", state=state)
    np.testing.assert_array_equal(load_file(path)["state.arrays.float"], state["arrays"]["float"])


def test_a_file_cut_short_anywhere_is_refused(state, tmp_path):
    path = tmp_path / "state.safetensors"
    save_checkpoint(path, kind="test", state=state)
    content = path.read_bytes()
    for length in [*range(0, len(content), 7), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="cut short"):
            load_checkpoint(path, kind="test")


def _rewrite(path, **changes):
    document = json.dumps({"version": FORMAT_VERSION, "kind": "test", "state": {}, **changes})
    tensors = {"x": np.zeros(1)}
    save_file(tensors, path, metadata={"pm_neural": document, "sha256": _digest(document, tensors)})


def test_a_flipped_bit_anywhere_is_detected(state, tmp_path):
    path = tmp_path / "state.safetensors"
    save_checkpoint(path, kind="test", state=state)
    content = path.read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"damaged|is of version"):
            load_checkpoint(path, kind="test")


def test_files_without_a_digest_are_of_a_version_that_is_named(tmp_path):
    path = tmp_path / "state.safetensors"
    document = {"version": 1, "kind": "test", "state": {}}
    save_file({"x": np.zeros(1)}, path, metadata={"pm_neural": json.dumps(document)})
    with pytest.raises(ValueError, match="is of version 1 and holds a test; expected version 2"):
        load_checkpoint(path, kind="test")
    save_file({"x": np.zeros(1)}, path, metadata={"pm_neural": json.dumps({**document, "version": FORMAT_VERSION})})
    with pytest.raises(ValueError, match="damaged"):
        load_checkpoint(path, kind="test")


def test_other_versions_and_kinds_are_refused(tmp_path):
    path = tmp_path / "state.safetensors"
    _rewrite(path)
    assert load_checkpoint(path, kind="test") == {}
    _rewrite(path, version=FORMAT_VERSION + 1)
    with pytest.raises(ValueError, match=rf"is of version {FORMAT_VERSION + 1} .* expected version {FORMAT_VERSION}"):
        load_checkpoint(path, kind="test")
    _rewrite(path, kind="VAE")
    with pytest.raises(ValueError, match=r"holds a VAE; expected version 2 and a test"):
        load_checkpoint(path, kind="test")


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"x": np.zeros(1)}, path)
    with pytest.raises(ValueError, match="no checkpoint of pm_neural"):
        load_checkpoint(path, kind="test")
    path.write_text("not at all")
    with pytest.raises(ValueError, match="no checkpoint of pm_neural"):
        load_checkpoint(path, kind="test")
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "missing", kind="test")


def test_a_failed_write_leaves_the_old_checkpoint(state, tmp_path, monkeypatch):
    path = tmp_path / "state.safetensors"
    save_checkpoint(path, kind="test", state={"old": 1})

    def full(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(path, kind="test", state=state)
    assert load_checkpoint(path, kind="test") == {"old": 1}
