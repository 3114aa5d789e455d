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
"""Chains of landmarks in the bundles of ``init``: which ones, their usual steps, and what they correct."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from summaries import GIB, summary

from monai_landmarks.data import write_spine_phantom
from monai_landmarks.planning import (
    METHODS,
    Machine,
    make_fine_tuning_plan,
    make_plan,
    read_source_bundle,
    summarize_datalist,
    write_bundle,
)
from monai_landmarks.planning.chain import choose_chains
from monai_landmarks.planning.close_look import close_look_config
from monai_landmarks.schema import Landmark, LandmarkSchema

NAMES = ("L1", "L2", "L3")
STEPS = np.array([[1.0, 2.0, -20.0], [-1.0, 0.0, -30.0]])
MACHINE = Machine("cpu", 8 * GIB)


def spines(images=10):
    """Landmarks whose steps are STEPS on average."""
    first = np.random.default_rng(0).uniform(20, 40, (images, 1, 3)) + [0, 0, 60]
    stretch = np.linspace(0.9, 1.1, images)[:, None, None]
    return first + np.concatenate([np.zeros((images, 1, 3)), stretch * STEPS.cumsum(axis=0)], axis=1)


def schema(*chain, dims=3):
    marks = tuple(Landmark(name) for name in (*NAMES, "rib"))
    return LandmarkSchema("back", dims, marks, chains={"bodies": chain or NAMES})


def data(**more):
    return summary((64, 64, 96), (2.0, 2.0, 2.0), 18, **{"names": NAMES, "training_points": spines(), **more})


def test_chains_are_those_that_all_volumes_show():
    assert choose_chains(data(), schema()).value == [list(NAMES)]
    assert choose_chains(data(), schema("L1", "rib", "L3")).value == [["L1", "L3"]]
    partly = spines()
    partly[3, 1] = np.nan
    for known, given, reason in (
        (data(), None, "no schema with chains"),
        (data(training_points=partly), schema(), "no chain of the schema back is complete in all training volumes"),
        (summary((64, 64), names=NAMES), schema(dims=2), "no usual steps"),
    ):
        choice = choose_chains(known, given)
        assert choice.value == [] and reason in choice.reason


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_steps_are_those_of_the_training_volumes(symmetric):
    plan = make_plan(data(), "unet", MACHINE, schema=schema(), symmetric=symmetric, given={"width": 4})
    chain, spacing = plan.train["inferer"]["chain"], plan.choices["spacing_mm"].value
    expected = STEPS * ([0, 1, 1] if symmetric else 1) / spacing
    np.testing.assert_allclose(chain["offsets"], [expected], atol=0.006)
    assert 0 < chain["min_distance"] < np.linalg.norm(expected, axis=1).min() / 2
    assert plan.train["inferer"].get("mirror") == ([0, 1, 2] if symmetric else None)
    assert plan.inference["inferer"] == plan.train["inferer"]
    for off in (None, {"chains": []}):
        plain = make_plan(data(), "unet", MACHINE, schema=schema() if off else None, given={"width": 4, **(off or {})})
        assert "chain" not in plain.train["inferer"] and plain.train["softmax"] is True
    with pytest.raises(ValueError, match="expected lists of landmarks of the datalist"):
        make_plan(data(), "unet", MACHINE, given={"width": 4, "chains": [["L1", "L9"]]})


def test_one_channel_of_the_close_look_for_landmarks_that_look_alike():
    """If all of them are one chain."""
    for chain, is_shared in ((NAMES, True), (NAMES[:2], False)):
        plan = make_plan(data(), "unet", MACHINE, schema=schema(*chain), given={"width": 4})
        shipped = METHODS["unet"].template("close_look")
        parser = ConfigParser(close_look_config(shipped, plan.choices, plan.summary))
        parser.update({"names": NAMES, "spatial_dims": 3})
        groups = parser.get_parsed_content("close_groups")
        assert groups.num_channels == (1 if is_shared else 3) and len(groups) == 3
        assert parser["close_sigma"] == (2.0 if is_shared else 1.0)


def test_a_landmark_on_its_neighbor_is_corrected():
    """The middle map has its highest peak at the last landmark."""
    plan = make_plan(data(), "unet", MACHINE, schema=schema(), given={"width": 4})
    parser = ConfigParser({"inferer": plan.train["inferer"], "precision": "float32"})
    size, spacing = plan.choices["spatial_size"].value, plan.choices["spacing_mm"].value
    points = torch.tensor(np.round(spines()[4] / spacing)).long()
    logits = torch.zeros(1, 3, *size)
    for landmark, place in enumerate(points):
        logits[(0, landmark, *place)] = 20
    logits[(0, 1, *points[2])] = 22
    found = parser.get_parsed_content("inferer")(torch.zeros(1, 1, *size), lambda image: logits)
    torch.testing.assert_close(found["points"][0].round().long(), points)


def test_a_bundle_with_a_chain(tmp_path):
    """It trains and predicts; fine-tuning for other landmarks leaves the chain out."""
    path = write_spine_phantom(tmp_path / "spine", 4, size=(24, 24, 40), spacing=(6, 6, 5), val_frac=0.5, test_frac=0)
    known = summarize_datalist(path)
    marks = tuple(Landmark(name) for name in known.names)
    plan = make_plan(
        known,
        "unet",
        MACHINE,
        schema=LandmarkSchema("back", 3, marks, chains={"bodies": known.names}),
        given={"width": 4, "max_epochs": 1, "val_interval": 1},
    )
    source = write_bundle(tmp_path / "source", plan, path)
    parser = ConfigParser()
    parser.read_config([source / "configs" / "train.json"])
    parser.update({"bundle_root": str(source), "device": "$torch.device('cpu')"})
    parser.get_parsed_content("train#trainer").run()
    assert (source / "models" / "model.pt").is_file()
    content = json.loads(path.read_text())
    for names in (list(known.names), [*known.names[:-1], "one more"]):
        content["landmarks"].update(names=names, pairs=[])
        other = path.with_name("other.json")
        for item in content["training"] + content["validation"]:
            item["label"] = np.random.default_rng(0).uniform(0, 50, (len(names), 3)).tolist()
        other.write_text(json.dumps({**content, "landmarks": {**content["landmarks"], "coordinate_system": "RAS"}}))
        again = make_fine_tuning_plan(summarize_datalist(other), read_source_bundle(source), MACHINE)
        learned = write_bundle(tmp_path / f"learned {names[-1]}", again, other)
        train = json.loads((learned / "configs" / "train.json").read_text())
        is_same = names == list(known.names)
        assert train["inferer"]["_target_"].endswith("ChainLandmarkInferer") is is_same
        assert train["softmax"] is not is_same
