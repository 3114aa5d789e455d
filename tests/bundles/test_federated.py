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

from pathlib import Path

import pytest
import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, ModelType
from monai.fl.utils.exchange_object import ExchangeObject
from monai.networks.utils import get_state_dict
from small_bundles import copy_bundle, small, table, training_size

pytestmark = pytest.mark.usefixtures("unpainted")


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
