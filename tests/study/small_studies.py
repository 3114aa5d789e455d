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

"""A small study, and a stand-in for its programs that writes what a bundle would write."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from monai_landmarks.data import LandmarkSet, datalist_item, load_landmark_datalist, save_datalist, write_landmark_table
from monai_landmarks.study import load_study, plan_study

NAMES = ("tip", "root")
STUDY = {
    "datalist": "data/datalist.json",
    "methods": ["scn", "adaptive"],
    "folds": 2,
    "budget": {"steps": 4},
    "common": {"width": 4, "spatial_size": [64, 64], "batch_size": 2},
    "device": "cpu",
    "resamples": 100,
}


def write_data(folder: Path, images: int = 8, name: str = "{image}.png") -> None:
    """Pictures with a bright and a dark spot, with a pixel size of 0.5 mm."""
    rng = np.random.default_rng(0)
    items = []
    (folder / "data" / "images").mkdir(parents=True)
    for i in range(images):
        points = rng.uniform(16, 48, (2, 2))
        pixels = rng.integers(90, 110, (64, 64))
        for (x, y), value in zip(points.round().astype(int), (255, 0)):
            pixels[y - 3 : y + 4, x - 3 : x + 4] = value
        file = f"images/{name.format(image=i, patient=i // 2)}"
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "data" / file)
        items.append(datalist_item(file, LandmarkSet(NAMES, points, "index"), 0.5))
    definition = {"names": NAMES, "pairs": [], "coordinate_system": "index"}
    sections = {"training": items[:-2], "validation": items[-2:], "testing": []}
    save_datalist(folder / "data" / "datalist.json", {"landmarks": definition, **sections})


def make_plan(folder: Path, out: str = "out", force: bool = False, **more):
    """The plan of the small study, with some keys changed."""
    (folder / f"{out}.json").write_text(json.dumps({**STUDY, **more}))
    return plan_study(load_study(folder / f"{out}.json"), folder / out, force)


class Ended:
    """A program that has ended."""

    def __init__(self, code: int | None) -> None:
        self.code, self.ended = code, False

    def poll(self):
        return self.code

    def terminate(self):
        self.ended = True

    def wait(self, timeout=None):
        return self.code


class StandIn:
    """Launches programs that end at once. The predictions depend only on the run and the image.

    Args:
        fail: names of runs whose training fails.
        hang: names of runs whose training never ends.
    """

    def __init__(self, fail=(), hang=()) -> None:
        self.fail, self.hang = set(fail), set(hang)
        self.launched, self.processes = [], []

    def __call__(self, arguments, log, environment, lock):
        what, root = arguments[3], Path(arguments[5])
        self.launched.append((what, root.name))
        self.arguments, self.environment = arguments, environment
        self.processes.append(Ended(self._run(what, root, Path(log), arguments)))
        return self.processes[-1]

    def _run(self, what, root, log, arguments):
        config = json.loads((root / "configs" / "train.json").read_text())
        with open(log, "a") as file:
            file.write(f"{what}\n")
        if root.name in self.hang:
            return None
        if root.name in self.fail:
            with open(log, "a") as file:
                file.write("RuntimeError: no memory left\n\n")
            return 3
        if what == "training":
            (root / "models").mkdir(exist_ok=True)
            (root / "eval").mkdir(exist_ok=True)
            rows = "".join(f"{epoch},1\n" for epoch in range(config["max_epochs"]))
            (root / "eval" / "training_curve.csv").write_text(f"epoch,loss\n{rows}")
            return 0
        sets = {}
        for item in load_landmark_datalist(config["datalist"], "testing"):
            name = Path(item["image"]).name
            rng = np.random.default_rng(zlib.crc32(f"{root.name} {name}".encode()))
            points = np.array(item["label"]) + rng.normal(0, 2 if root.name.startswith("scn") else 4, (2, 2))
            sets[name] = LandmarkSet(NAMES, points, "index")
        folder = root / "eval" / "testing" / "predictions"
        folder.mkdir(parents=True, exist_ok=True)
        write_landmark_table(folder / "predictions.csv", sets)
        return 0
