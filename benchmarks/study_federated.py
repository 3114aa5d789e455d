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

"""Compare a federated training with the training of each site alone and of all images together; see README.md.

python benchmarks/study_federated.py --out federated [--sites 0.5,0.3,0.2] [--rounds 5] [--flare]
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fire
import numpy as np
import torch
from federated_site import DATALIST, Site, Update, absent_rounds, describe
from monai.bundle import ConfigWorkflow
from monai.utils import optional_import

from monai_landmarks.data import load_landmark_datalist, save_datalist, write_hand_phantom
from monai_landmarks.data.files.tensor_files import atomic_save
from monai_landmarks.evaluation.bundle_facts import resolve_bundle

SCRIPT = Path(__file__).with_name("federated_site.py")
FIGURES = ("OverlaySaver", "TrainingCurve")
VALIDATION = 0.2  # part of the images of a site that it validates on


def divide(items: Sequence[Any], shares: Sequence[float]) -> list[list[Any]]:
    """Divide items among sites by their shares; each gets at least one."""
    ends = np.round(np.cumsum(shares) / np.sum(shares) * len(items)).astype(int)
    parts = np.split(np.arange(len(items)), ends[:-1])
    if any(len(part) == 0 for part in parts):
        raise ValueError(f"{len(items)} images are too few for {len(shares)} sites with shares {tuple(shares)}.")
    return [[items[i] for i in part] for part in parts]


def without(item: Mapping[str, Any], landmarks: Sequence[str]) -> dict[str, Any]:
    """Return an item in which these landmarks are missing: the site has not annotated them."""
    if "label_names" not in item:
        raise ValueError(f"{item['image']}: the label must be a list of points with names, as `check` writes it.")
    names = item["label_names"]
    label = [[None] * len(point) if name in landmarks else point for name, point in zip(names, item["label"])]
    return {**item, "label": label}


def write_site(
    bundle: Path, source: Path, training: list[Any], testing: list[Any], missing: Sequence[str] = ()
) -> None:
    """Write the bundle of a site, with a datalist of its own images, and without the figures of each validation."""
    shutil.copytree(source, bundle, ignore=shutil.ignore_patterns("models", "eval", "data"))
    for name in ("train", "evaluate"):
        path = bundle / "configs" / f"{name}.json"
        config = json.loads(path.read_text())
        for part in (config, config.get("train", {}), config.get("validate", {})):
            for key in [key for key in part if key.endswith("handlers")]:
                part[key] = [each for each in part[key] if not str(each.get("_target_")).endswith(FIGURES)]
        path.write_text(json.dumps(config, indent=4))
    items = [without(item, missing) for item in training]
    held = max(1, round(VALIDATION * len(items)))
    definition = {"names": items[0]["label_names"], "coordinate_system": items[0]["label_coordinate_system"]}
    sections = {"training": items[held:], "validation": items[:held], "testing": testing}
    save_datalist(bundle / DATALIST, {"landmarks": definition, **sections})


def mean_of(updates: Sequence[Update]) -> dict[str, torch.Tensor]:
    """Return the mean of the weights, weighted by the numbers of training images (federated averaging)."""
    total = sum(update.images for update in updates)
    return {
        name: sum(update.weights[name].double() * (update.images / total) for update in updates).to(value.dtype)  # type: ignore[union-attr]
        for name, value in updates[0].weights.items()
    }


def federate(
    folder: Path, names: Sequence[str], rounds: int, local_epochs: int, absent: str, settings: Mapping[str, Any]
) -> tuple[dict[str, torch.Tensor], list[tuple[str, str, int]]]:
    """Run a federated training in this process. Return the final weights, and what a site has sent in one round."""
    sites = {name: Site(folder / name, name, rounds, local_epochs, **settings) for name in names}
    weights = next(iter(sites.values())).initial_weights()
    sent: list[tuple[str, str, int]] = []
    for number in range(rounds):
        there = [name for name in names if number not in absent_rounds(absent, name)]
        updates = [sites[name].train(weights) for name in there]
        weights, sent = mean_of(updates), describe(updates[0])
        print(f"round {number}: " + ", ".join(f"{n} {u.metrics['val_mre']:.2f} mm" for n, u in zip(there, updates)))
    for site in sites.values():
        site.keep(weights)
    return weights, sent


def federate_with_flare(
    folder: Path, names: Sequence[str], rounds: int, local_epochs: int, absent: str, settings: Mapping[str, Any]
) -> tuple[dict[str, torch.Tensor], list[tuple[str, str, int]]]:
    """Run a federated training in the simulator of NVIDIA FLARE, see :func:`federate`."""
    averaging, _ = optional_import("nvflare.app_common.workflows.fedavg")
    jobs, _ = optional_import("nvflare.job_config.api")
    runners, _ = optional_import("nvflare.job_config.script_runner")
    fobs, _ = optional_import("nvflare.fuel.utils.fobs")

    job = jobs.FedJob(name="landmarks", min_clients=len(names))
    job.to_server(averaging.FedAvg(num_clients=len(names), num_rounds=rounds, save_filename="global_model.fobs"))
    arguments = f"--sites {folder} --rounds {rounds} --local_epochs {local_epochs}"
    if absent:
        arguments += f" --absent {absent}"
    if settings:  # in a file, because the command line has its own rules for true, false and null
        (folder / "settings.json").write_text(json.dumps(settings))
        arguments += f" --settings {folder / 'settings.json'}"
    for name in names:
        raw = runners.FrameworkType.RAW
        job.to(runners.ScriptRunner(script=str(SCRIPT), script_args=arguments, framework=raw), name)
    workspace = folder / "flare"
    job.simulator_run(str(workspace), clients=list(names), threads=len(names))
    found = sorted(workspace.rglob("global_model.fobs"))
    if not found:
        raise RuntimeError(f"FLARE has written no model; its logs are in {workspace}.")
    model = fobs.loadf(str(found[0]))
    last = (folder / names[0] / "sent.jsonl").read_text().splitlines()[-1]
    weights = {name: torch.as_tensor(value) for name, value in model.params.items()}
    return weights, [tuple(row) for row in json.loads(last)["items"]]


def train_alone(bundle: Path, epochs: int, settings: Mapping[str, Any]) -> None:
    """Train a bundle on its own images."""
    run(bundle, ["train"], max_epochs=epochs, val_interval=1, **settings)


def run(bundle: Path, configs: Sequence[str], **settings: Any) -> None:
    """Run a workflow of a bundle."""
    files = [str(bundle / "configs" / f"{name}.json") for name in configs]
    options = {"bundle_root": str(bundle), "datalist": str(bundle / DATALIST), **settings}
    flow = ConfigWorkflow(files, logging_file=False, workflow_type="train", **options)
    flow.initialize()
    flow.run()


def errors(bundle: Path, settings: Mapping[str, Any]) -> dict[str, float]:
    """Return the mean error in mm of each landmark in the test images."""
    run(bundle, ["train", "evaluate"], section="testing", **settings)
    with open(bundle / "eval" / "testing" / "errors_per_landmark.csv", encoding="utf-8", newline="") as file:
        return {row["landmark"]: float(row["mean"]) for row in csv.DictReader(file)}


def table(found: Mapping[str, Mapping[str, float]], images: Mapping[str, int], missing: Sequence[str]) -> str:
    """Return a table in Markdown: the error of all landmarks, and of those that one site has not annotated."""
    lines = ["| trained | images | all landmarks, mm | those missing at the last site, mm |", "|---|---|---|---|"]
    for arm, each in found.items():
        chosen = [value for name, value in each.items() if name in missing]
        cells = (
            f"{np.mean(list(each.values())):.2f} | {np.mean(chosen):.2f}"
            if chosen
            else f"{np.mean(list(each.values())):.2f} | -"
        )
        lines.append(f"| {arm} | {images[arm]} | {cells} |")
    return "\n".join(lines)


def main(
    out: str = "federated",
    bundle: str = "hand_xray_landmarks_scn",
    datalist: str = "",
    sites: Sequence[float] | float = (0.5, 0.3, 0.2),
    rounds: int = 5,
    local_epochs: int = 2,
    images: int = 60,
    size: int = 128,
    missing: int = 2,
    absent: str = "",
    flare: bool = False,
    threads: int = 1,
    settings: dict[str, Any] | None = None,
    quick: bool = False,
) -> None:
    """Divide a dataset among sites, train federated, alone and together, and compare on the same test images.

    All have the same network, settings and number of epochs. The last site has not annotated some landmarks.

    Args:
        out: new folder of the results.
        bundle: folder or name of the bundle.
        datalist: a datalist with points. Its validation section is the test images here. Default: a phantom.
        sites: share of the training images of each site.
        rounds: number of rounds.
        local_epochs: epochs of a site per round.
        images: number of images of the phantom.
        size: side of the phantom images.
        missing: number of landmarks that the last site has not annotated.
        absent: rounds, from 0, in which sites are away: ``site-2:1,2``.
        flare: use the simulator of NVIDIA FLARE (extra ``federated``).
        threads: threads of torch.
        settings: settings of the bundle.
        quick: a tiny phantom and network, only to see that it runs.
    """
    torch.set_num_threads(threads)
    folder, source = Path(out).absolute(), Path(resolve_bundle(bundle))
    shares = [sites] if isinstance(sites, (int, float)) else list(sites)
    names = [f"site-{number + 1}" for number in range(len(shares))]
    options: dict[str, Any] = {} if datalist else {"spatial_size": [size, size]}
    if quick:
        images, size, rounds, local_epochs = 14, 64, 2, 1
        options = {"spatial_size": [64, 64], "network_def#unet_features": [4] * 6, "network_def#features": 4}
    options |= settings or {}
    folder.mkdir(parents=True)
    if not datalist:
        datalist = str(write_hand_phantom(folder / "phantom", images, size=(size, size), val_frac=0.2))
    training, testing = (load_landmark_datalist(datalist, section) for section in ("training", "validation"))
    left_out = training[0]["label_names"][:missing]
    parts = divide(training, shares)
    for name, part in zip(names, parts):
        for arm in ("federated", "alone"):
            write_site(folder / arm / name, source, part, testing, left_out if name == names[-1] else ())
    # the pooled training has the same labels, and so the same landmarks missing in the images of the last site
    together = [without(item, left_out if part is parts[-1] else ()) for part in parts for item in part]
    write_site(folder / "together", source, together[::-1], testing)
    write_site(folder / "global", source, training, testing)

    run_federated = federate_with_flare if flare else federate
    weights, sent = run_federated(folder / "federated", names, rounds, local_epochs, absent, options)
    atomic_save(weights, folder / "global" / "models" / "model.pt")
    found = {"federated": errors(folder / "global", options)}
    counts = {"federated": len(training), "together": len(training)}
    for arm, place in {"together": folder / "together", **{n: folder / "alone" / n for n in names}}.items():
        train_alone(place, rounds * local_epochs, options)
        found[arm] = errors(place, options)
    counts |= {name: len(part) for name, part in zip(names, parts)}
    result = table(found, counts, left_out)
    total = sum(row[2] for row in sent)
    listed = "\n".join(f"| {kind} | {name} | {size} |" for kind, name, size in sent)
    result += f"\n\nA site sends {len(sent)} items of {total} bytes per round:\n\n| kind | name | bytes |\n|---|---|---|\n{listed}"
    (folder / "study.md").write_text(f"{result}\n")
    print(result)


if __name__ == "__main__":
    sys.path.insert(0, str(SCRIPT.parent))
    fire.Fire(main)
