# Copyright (c) monai_landmarks contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Saved weights are complete and finite, and a metric that is NaN is never the best."""

from __future__ import annotations

import errno
import logging
import math
import os

import pytest
import torch
from engines import Regressor, make_cases, make_evaluator

from monai_landmarks.handlers import SafeCheckpointLoader, SafeCheckpointSaver
from monai_landmarks.uncertainty import calibration_path, doubt_path

OPTIONS = {"save_key_metric": True, "key_metric_negative_sign": True}


def evaluator_of(scores, handler, network):
    """An evaluator whose metric is given, epoch by epoch."""
    return make_evaluator(make_cases(2), [handler], network=network, scores=scores)


def test_nan_is_never_the_best(tmp_path, caplog):
    network = Regressor()
    saver = SafeCheckpointSaver(str(tmp_path), {"model": network}, key_metric_filename="model.pt", **OPTIONS)
    evaluator = evaluator_of([math.nan, math.inf, 5.0, math.nan, 6.0], saver, network)
    with caplog.at_level(logging.INFO):
        for epoch, kept in enumerate([False, False, True, True, True], 1):
            evaluator.run(epoch)
            assert (tmp_path / "model.pt").exists() == kept
    assert (evaluator.state.best_metric, evaluator.state.best_metric_epoch) == (5.0, 3)
    assert caplog.text.count("new best metric") == 1
    assert "val_mre is nan: these weights are not saved as the best" in caplog.text


def test_old_weights_keep_their_calibration_until_new_ones_are_complete(tmp_path, monkeypatch):
    network = Regressor()
    saver = SafeCheckpointSaver(str(tmp_path), {"model": network}, key_metric_filename="model.pt", **OPTIONS)
    evaluator = evaluator_of([5.0, 4.0], saver, network)
    evaluator.run(1)
    for path in (calibration_path(tmp_path / "model.pt"), doubt_path(tmp_path / "model.pt")):
        path.write_text("of the old weights")
    old = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def full(content, file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(OSError, match="the disk is full") as caught:
        patch.setattr(torch, "save", full)
        evaluator.run(2)
    assert caught.value.filename == str(tmp_path / "model.pt")
    assert old == {path: path.read_bytes() for path in tmp_path.iterdir()}
    evaluator_of([3.0], saver, network).run(1)
    assert os.listdir(tmp_path) == ["model.pt"] and (tmp_path / "model.pt").read_bytes() != b"half"


@pytest.mark.parametrize("name", ["model.pt", None])
def test_nan_weights_are_not_saved(name, tmp_path):
    network = Regressor()
    saver = SafeCheckpointSaver(str(tmp_path), {"model": network}, key_metric_filename=name, **OPTIONS)
    evaluator = evaluator_of([5.0, 4.0], saver, network)
    evaluator.run(1)
    (path,) = tmp_path.iterdir()
    old = path.read_bytes()
    good = network.layers[1].weight.detach().clone()
    with torch.no_grad():
        network.layers[1].weight[0, 2:4] = torch.tensor([torch.nan, torch.inf])
    with pytest.raises(
        ValueError, match=r"pt: the weights are not saved, because 2 of the 1536 values of 'layers.1.weight'"
    ):
        evaluator.run(2)
    assert path.read_bytes() == old and os.listdir(tmp_path) == [path.name]
    with torch.no_grad():
        network.layers[1].weight.copy_(good + 1)
    evaluator_of([4.5], saver, network).run(1)  # the failed save, of 4.0, does not count as the best one
    (path,) = tmp_path.iterdir()
    assert path.read_bytes() != old and (name or "-4.5" in path.name)


def test_weights_of_another_network_are_refused_with_what_to_do(tmp_path):
    path, shipped = tmp_path / "model.pt", tmp_path / "pretrained_close_look.pt"
    both = torch.nn.ModuleDict({"coarse": Regressor(), "fine": Regressor()})

    def fault(saved, network):
        torch.save(saved.state_dict(), path)
        with pytest.raises(ValueError, match=r"model.pt: these ") as found:
            SafeCheckpointLoader(str(path), {"model": network})(make_evaluator(make_cases(2)))
        assert "\n" not in str(found.value)
        return str(found.value)

    alone = fault(Regressor(), both)
    assert "are weights of one network" in alone and "Train it with configs/close_look.json." in alone
    shipped.touch()
    assert fault(Regressor(), both).endswith(f"or give the shipped weights of both: --checkpoint {shipped}.")
    assert "are weights of both networks" in fault(both, Regressor())
    assert "do not belong to the network Regressor" in fault(torch.nn.Linear(1, 1), Regressor())
    other = fault(torch.nn.Linear(1, 2), torch.nn.Linear(1, 1))
    assert "do not belong to the network Linear with its present settings: size mismatch for weight" in other
    torch.save(both.state_dict(), path)
    SafeCheckpointLoader(str(path), {"model": both})(make_evaluator(make_cases(2)))


def test_weights_that_are_damaged_or_not_finite_are_not_loaded(tmp_path):
    network, path = Regressor(), tmp_path / "model.pt"
    loader = SafeCheckpointLoader(str(path), {"model": network})
    with pytest.raises(ValueError, match=r"model.pt: there is no such file. Train"):
        loader(make_evaluator(make_cases(2)))
    (tmp_path / "pretrained_close_look.pt").touch()
    with pytest.raises(ValueError, match=r"model.pt: there is no such file. .* Read configs/close_look.json, too"):
        loader(make_evaluator(make_cases(2)))
    state = network.state_dict()
    torch.save(state, path)
    loader(make_evaluator(make_cases(2)))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"model.pt: the file is damaged"):
        loader(make_evaluator(make_cases(2)))
    state["layers.1.bias"][2] = torch.inf
    torch.save(state, path)
    with pytest.raises(
        ValueError, match=r"model.pt: these weights are useless, because 1 of the 6 values of 'layers.1.bias'"
    ):
        loader(make_evaluator(make_cases(2)))
