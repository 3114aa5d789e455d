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
"""Rounds of federated learning with MONAI's client: training, evaluation, and the models that it gives away."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from federated_site import Site, Update, absent_rounds, describe
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, ModelType
from monai.fl.utils.exchange_object import ExchangeObject
from monai.networks.utils import get_state_dict
from small_bundles import NETWORKS, SCN_LOSS, SIZE, SOURCE, copy_bundle, small, table, training_size
from study_federated import divide, federate, federate_with_flare, mean_of, write_site

from monai_landmarks.data import load_landmark_datalist, write_hand_phantom

pytestmark = pytest.mark.usefixtures("unpainted")
BUNDLE = "hand_xray_landmarks_scn"
MISSING = 2
# without random numbers, so that a site comes to the same weights in a process of its own
PLAIN: dict[str, Any] = {
    "network_def": {**NETWORKS["scn"], "unet_features": [4] * 6, "features": 4},
    **SCN_LOSS,
    "spatial_size": SIZE,
    "augmentation": [],
    "train#dataloader#shuffle": False,
}


def test_rounds(tmp_path: Path) -> None:
    root = copy_bundle("hand_xray_landmarks_scn", tmp_path)
    options = small(root, **training_size(root))
    client = MonaiAlgo(str(root), local_epochs=1, send_weight_diff=False, train_kwargs=options, eval_kwargs=options)
    client.initialize({ExtraItems.CLIENT_NAME: "client"})
    weights = {name: value.clone() for name, value in get_state_dict(client.trainer.network).items()}
    rounds = []
    for round_ in range(1, 4):
        client.train(ExchangeObject(weights=weights))
        assert client.trainer.state.epoch == round_
        weights = {name: value.clone() for name, value in client.get_weights().weights.items()}
        rounds.append(weights)
        assert "val_mre" in client.evaluate(ExchangeObject(weights=weights)).metrics
    curve = table(root / "eval" / "training_curve.csv")
    assert [row["epoch"] for row in curve] == ["1", "2", "3"]
    lowest = min(range(3), key=lambda i: float(curve[i]["metric"]))
    final = client.get_weights({ExtraItems.MODEL_TYPE: ModelType.FINAL_MODEL}).weights
    torch.testing.assert_close(dict(final), weights, rtol=0, atol=0)
    best = client.get_weights({ExtraItems.MODEL_TYPE: ModelType.BEST_MODEL}).weights
    torch.testing.assert_close(dict(best), rounds[lowest], rtol=0, atol=0)
    client.finalize()


def write_two_sites(folder: Path) -> list[str]:
    """Write two sites with 6 and 3 images. The second one has not annotated the first two landmarks."""
    items = load_landmark_datalist(str(write_hand_phantom(folder / "phantom", 10, size=SIZE, val_frac=0.1)))
    names = ["site-1", "site-2"]
    for name, part in zip(names, divide(items, (2, 1))):
        missing = items[0]["label_names"][:MISSING] if name == "site-2" else ()
        write_site(folder / name, SOURCE / BUNDLE, part, part[:1], missing)
    return names


def test_two_sites(tmp_path: Path) -> None:
    """Only the network leaves a site; landmarks that it has not annotated are missing there, not absent."""
    names = write_two_sites(tmp_path)
    sites = [Site(tmp_path / name, name, 3, **PLAIN) for name in names]
    first = sites[0].initial_weights()
    torch.testing.assert_close(sites[1].initial_weights(), first, rtol=0, atol=0)
    updates = [site.train(first) for site in sites]
    assert [update.images for update in updates] == [5, 2] and "val_mre" in updates[0].metrics

    network = sites[0].client.trainer.network.state_dict()
    listed = describe(updates[1])
    assert [name.split()[0] for kind, name, _ in listed if kind == "tensor"] == list(network)
    assert {name for kind, name, _ in listed if kind != "tensor"} == {*updates[1].metrics, "training images"}
    assert sum(size for kind, _, size in listed if kind == "tensor") == sum(v.nbytes for v in network.values())
    assert not any("sigma" in name or "hand" in name for _, name, _ in listed)

    # the last bias of a heatmap changes only by its own landmark; an absent landmark would pull it down
    moved = [
        (update.weights["spatial_configuration.3.bias"] - first["spatial_configuration.3.bias"]).abs()
        for update in updates
    ]
    assert (moved[1] > 1e-4).tolist() == [False] * MISSING + [True] * (len(moved[1]) - MISSING)
    assert moved[1][:MISSING].tolist() == [0.0] * MISSING and moved[0].min() > 1e-4

    # sigmas stay and differ; the site without two landmarks has their initial ones
    sigmas = [site.client.trainer.loss_function.sigma.detach().clone() for site in sites]
    assert torch.equal(sigmas[1][:MISSING], torch.full((MISSING,), 2.5))
    assert (sigmas[0] != sigmas[1]).all()

    # the second site is away for a round, and comes back in a new process
    received = mean_of([sites[0].train(mean_of(updates))])
    sites[1] = Site(tmp_path / "site-2", "site-2", 3, **PLAIN)
    back = sites[1].train(received)
    alone = Site(tmp_path / "site-2", "site-2", 3, **PLAIN).client
    alone.train(ExchangeObject(weights=received))  # nothing of its own old weights
    torch.testing.assert_close(back.weights, dict(alone.get_weights().weights), rtol=0, atol=0)

    # the final model is kept at the site, with the sigmas of the site
    sites[0].keep(received)
    kept = torch.load(tmp_path / "site-1/models/model.pt", weights_only=True)
    torch.testing.assert_close(dict(kept), received, rtol=0, atol=0)
    sigma = torch.load(tmp_path / "site-1/models/model_sigma.pt", weights_only=True)
    own = sites[0].client.trainer.loss_function.sigma.detach()
    assert any(torch.equal(value.flatten(), own) for value in sigma.values() if isinstance(value, torch.Tensor))


def test_mean_is_weighted_by_the_images() -> None:
    weights = [
        {"a": torch.tensor([1.0, 5.0]), "n": torch.tensor(4)},
        {"a": torch.tensor([4.0, -1.0]), "n": torch.tensor(4)},
    ]
    mean = mean_of([Update(weights[0], {}, 2), Update(weights[1], {}, 1)])
    assert mean["a"].tolist() == [2.0, 3.0] and mean["n"] == 4 and mean["n"].dtype == torch.int64
    assert absent_rounds("site-2:1,2;site-3:4", "site-3") == {4} and absent_rounds("", "site-1") == set()


@pytest.mark.skipif(
    os.environ.get("MONAI_LANDMARKS_FAULTS") != "long", reason="MONAI_LANDMARKS_FAULTS=long runs the simulator of FLARE"
)
def test_flare_comes_to_the_same_model(tmp_path: Path) -> None:
    pytest.importorskip("nvflare", reason="NVIDIA FLARE is not installed (extra 'federated')")
    folders = [tmp_path / "flare", tmp_path / "plain"]
    for folder in folders:
        write_two_sites(folder)
    # Adam would turn differences of rounding between processes into steps
    sgd = {"_target_": "torch.optim.SGD", "params": "$@network.parameters()", "lr": "@learning_rate", "momentum": 0.9}
    settings = {**PLAIN, "optimizer": sgd, "learning_rate": 1e-6}
    names, arguments = ["site-1", "site-2"], (3, 1, "site-2:1", settings)
    first = Site(folders[1] / "site-1", "site-1", 3, **settings).initial_weights()
    simulated, sent = federate_with_flare(folders[0], names, *arguments)
    plain, listed = federate(folders[1], names, *arguments)
    assert json.loads(json.dumps(listed)) == [list(row) for row in sent]

    def distance(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> float:
        return sum(float((one[name].double() - two[name].double()).square().sum()) for name in first) ** 0.5

    assert distance(simulated, plain) < 1e-3 * distance(plain, first)


def test_the_evaluation_is_built_before_the_first_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of the bundle whose evaluation uses more than the weights that a training writes."""
    root = copy_bundle("vertebrae_ct_landmarks_scn", tmp_path)
    options = small(root, **training_size(root))
    client = MonaiAlgo(str(root), send_weight_diff=False, train_kwargs=options, eval_kwargs=options)
    client.initialize({ExtraItems.CLIENT_NAME: "client"})
    assert client.evaluator is not None and "presence.json: there is no such file" in caplog.text
