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

"""One site of a federated training: MONAI's client algorithm on a bundle, and everything that leaves the site.

As a script, it is the client of NVIDIA FLARE that ``study_federated.py`` starts:

python benchmarks/federated_site.py --sites FOLDER --rounds 5 [--absent "site-3:2,3"] [--settings FILE]
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import fire
import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems
from monai.fl.utils.exchange_object import ExchangeObject
from monai.handlers import CheckpointSaver
from monai.utils import optional_import

__all__ = ["Site", "Update", "absent_rounds", "describe"]

DATALIST = "datalist.json"


class Update(NamedTuple):
    """What a site sends after a round. Nothing else leaves the site.

    Args:
        weights: tensors of the network, by name. The sigmas of a loss are not among them.
        metrics: the metrics of the received model on the validation images of the site.
        images: number of training images, the weight of this site in the mean.
    """

    weights: dict[str, torch.Tensor]
    metrics: dict[str, float]
    images: int


class Site:
    """A site that trains a bundle on its own images, with MONAI's client algorithm.

    The network is shared. Loss (with learned sigmas), optimizer and learning rate schedule stay at the site and continue
    from round to round. Do not set ``resume``: a resumed training starts from its own weights, not from those of the
    server.

    Args:
        bundle: folder of the bundle at this site, with its own ``datalist.json``.
        name: name of the site.
        rounds: number of rounds, for the length of the learning rate schedule.
        local_epochs: epochs per round.
        settings: settings of the bundle, as ``monai.bundle run`` takes them.
    """

    def __init__(self, bundle: Path, name: str, rounds: int, local_epochs: int = 1, **settings: Any) -> None:
        self.bundle = Path(bundle)
        options = {"bundle_root": str(bundle), "datalist": str(self.bundle / DATALIST), "val_interval": 1, **settings}
        # MONAI sets max_epochs to those of one round; the schedule is that of all rounds
        steps = f"${rounds * local_epochs} * len(@train#dataloader)"
        self.client = MonaiAlgo(
            str(bundle),
            local_epochs=local_epochs,
            send_weight_diff=False,
            train_kwargs={**options, "lr_scheduler#total_steps": steps},
            eval_kwargs={**options, "section": "validation"},
        )
        self.client.initialize({ExtraItems.CLIENT_NAME: name})

    @property
    def images(self) -> int:
        """Number of training images."""
        assert self.client.trainer is not None
        return len(self.client.trainer.data_loader.dataset)  # type: ignore[arg-type]

    def initial_weights(self) -> dict[str, torch.Tensor]:
        """Return the weights of the bundle before the first round, which are the same at all sites (``seed``)."""
        return {name: value.clone() for name, value in self.client.get_weights().weights.items()}

    def train(self, weights: Mapping[str, torch.Tensor]) -> Update:
        """Evaluate the model of the server, train it for one round, and return what is sent back."""
        received = ExchangeObject(weights=dict(weights))
        metrics = self.client.evaluate(received).metrics
        self.client.train(received)
        sent = {name: value.detach().cpu().clone() for name, value in self.client.get_weights().weights.items()}
        return Update(sent, {name: float(value) for name, value in metrics.items()}, self.images)

    def keep(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Write the final model into ``models/``, with the sigmas of this site and a calibration on its images.

        The validation of the bundle does this for a best model, so it runs once with these weights.
        """
        trainer, flow = self.client.trainer, self.client.train_workflow
        assert trainer is not None and flow is not None
        trainer.network.load_state_dict(weights)
        evaluator = flow.parser.get_parsed_content("validate#evaluator")  # type: ignore[attr-defined]
        evaluator.state.best_metric = evaluator.state.best_metric_epoch = -1
        for saver in best_savers(evaluator):
            saver.load_state_dict({"_saved": []})
        evaluator.run(evaluator.state.epoch + 1)


def best_savers(evaluator: Any) -> list[CheckpointSaver]:
    """Return the handlers of a validator that keep its best model."""
    calls = [entry[0] for entries in evaluator._event_handlers.values() for entry in entries]
    owners = {id(owner): owner for owner in (getattr(call, "__self__", None) for call in calls)}.values()
    return [
        owner for owner in owners if isinstance(owner, CheckpointSaver) and owner._key_metric_checkpoint is not None
    ]


def describe(update: Update) -> list[tuple[str, str, int]]:
    """Return what leaves a site, one row per item: kind, name with shape and type, and bytes."""
    rows = [
        ("tensor", f"{name} {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}", value.nbytes)
        for name, value in update.weights.items()
    ]
    rows += [("metric", name, 8) for name in update.metrics]
    return [*rows, ("number", "training images", 8)]


def absent_rounds(text: str, site: str) -> set[int]:
    """Return the rounds, from 0, in which a site is away.

    Example:
        >>> absent_rounds("site-2:1,2;site-3:4", "site-2")
        {1, 2}
    """
    found = dict(part.split(":") for part in text.split(";") if part)
    return {int(number) for number in found.get(site, "").split(",") if number}


def main(sites: str, rounds: int, local_epochs: int = 1, absent: str = "", settings: str = "") -> None:
    """Take part in a federated training of NVIDIA FLARE, with FLARE's Client API.

    Args:
        sites: folder with the bundle of each site, by its name.
        rounds: number of rounds.
        local_epochs: epochs per round.
        absent: rounds in which sites are away, such as ``site-2:1,2;site-3:4``.
        settings: JSON file with settings of the bundle.
    """
    flare, _ = optional_import("nvflare.client")
    flare.init()
    name = flare.get_site_name()
    options = json.loads(Path(settings).read_text()) if settings else {}
    away = absent_rounds(absent, name)
    site = Site(Path(sites) / name, name, rounds, local_epochs, **options)
    while flare.is_running():
        received = flare.receive()
        if received is None:
            break
        if received.current_round in away:
            flare.send(flare.FLModel(params={}))  # FLARE's FedAvg leaves it out of the mean
            continue
        weights = {key: torch.as_tensor(value) for key, value in (received.params or {}).items()}
        update = site.train(weights or site.initial_weights())
        with open(site.bundle / "sent.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"round": received.current_round, "items": describe(update)}) + "\n")
        flare.send(
            flare.FLModel(
                params={key: value.numpy() for key, value in update.weights.items()},
                metrics=update.metrics,
                meta={"NUM_STEPS_CURRENT_ROUND": update.images},
            )
        )


if __name__ == "__main__":
    fire.Fire(main)
