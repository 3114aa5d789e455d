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

"""The bundle of vertebrae in the layout of VerSe: parts of a spine, in patches, chosen as a chain."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.inferers import SlidingWindowInferer
from small_bundles import PATCH, SOURCE, SPINES, copy_bundle, run, table, training_size, workflow

from monai_landmarks.data import (
    VERSE_LANDMARKS,
    bundle_landmark_names,
    load_landmark_datalist,
    read_landmark_table,
    read_landmarks,
    verse_datalist,
)
from monai_landmarks.metrics import PresenceThreshold
from monai_landmarks.transforms import HeatmapToChainLandmarks

pytestmark = pytest.mark.usefixtures("unpainted")

(BUNDLE,) = SPINES
NAMES = list(VERSE_LANDMARKS[:25])


def test_it_is_the_published_network_and_training() -> None:
    """Numbers of the method's own experiment, VISAPP 2020 and its code."""
    root = SOURCE / BUNDLE
    assert bundle_landmark_names(root / "configs" / "metadata.json") == NAMES
    parser = ConfigParser()
    parser.read_config(root / "configs" / "train.json")
    parser.update({"bundle_root": str(root)})
    assert (parser["voxel_spacing"], parser["patch_size"]) == (2.0, [96, 96, 128])
    with torch.device("meta"):
        network = parser.get_parsed_content("network_def")
        widths = {module.out_channels for module in network.modules() if isinstance(module, torch.nn.Conv3d)}
    assert widths == {64, 25} and network.spatial_factor == 4
    loss = parser.get_parsed_content("loss_def")
    assert (loss.sigma_weight, loss.target.amplitude) == (100, 1000) and set(loss.sigma.tolist()) == {4.0}
    assert parser["lr_scheduler"]["milestones"] == [50000, 75000]
    parser.update({"network_def": torch.nn.Conv3d(1, 25, 1), "lr_scheduler#milestones": [5, 8]})
    optimizer, scheduler = (parser.get_parsed_content(key) for key in ("optimizer", "lr_scheduler"))
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([1e-8] * 5 + [5e-9] * 3 + [1e-9] * 2)
    assert optimizer.defaults["nesterov"] and optimizer.defaults["momentum"] == 0.99


@pytest.mark.parametrize("trained", [BUNDLE], indirect=True)
def test_presence_is_decided_on_validation_and_reported(trained: Path) -> None:
    threshold = PresenceThreshold.read(trained / "models" / "presence.json")
    validation = load_landmark_datalist(verse_datalist(trained / "data"), "validation")
    assert threshold.num_present == 6 * len(validation) and threshold.num_absent == 19 * len(validation)
    for configs in (("inference",), ("train", "evaluate")):
        flow = workflow(trained, *configs, **(training_size(trained) if len(configs) > 1 else {}))
        assert flow.parser.get_parsed_content("presence_threshold") == threshold.threshold
    assert workflow(trained, "train").parser.get_parsed_content("presence_threshold") == 0.05


@pytest.mark.parametrize("trained", [BUNDLE], indirect=True)
def test_inference_is_the_chain_of_the_stitched_heatmaps(trained: Path, tmp_path: Path) -> None:
    image = Path(load_landmark_datalist(verse_datalist(trained / "data"), "testing")[0]["image"])
    flow = run(trained, "inference", dataset_dir=str(image.parent), output_dir=str(tmp_path))
    item = flow.parser.get_parsed_content("preprocessing")({"image": str(image)})
    options = {"overlap": flow.parser.get_parsed_content("overlap"), "mode": "gaussian"}
    with torch.no_grad():
        maps = SlidingWindowInferer(PATCH, 2, **options)(item["image"].as_tensor()[None], flow.network_def.eval())[0]
    chain = HeatmapToChainLandmarks(
        [NAMES], NAMES, direction=(0, 0, -1), threshold=flow.parser.get_parsed_content("presence_threshold")
    )
    affine = item["image"].affine.numpy()
    expected = chain(maps, affine).points.numpy() @ affine[:3, :3].T + affine[:3, 3]
    found = read_landmarks(tmp_path / f"{image.name.split('.')[0]}.mrk.json").to("RAS")
    np.testing.assert_allclose(found.reorder(NAMES).points, expected, atol=0.1)
    assert np.isfinite(expected).any()


@pytest.mark.parametrize("trained", [BUNDLE], indirect=True)
def test_evaluation(trained: Path, tmp_path: Path) -> None:
    run(trained, "train", "evaluate", output_dir=str(tmp_path), **training_size(trained))
    metrics = {row["metric"]: float(row["value"]) for row in table(tmp_path / "metrics.csv")}
    assert metrics["images"] == 1
    assert len(read_landmark_table(tmp_path / "predictions" / "predictions.csv")) == 1


def test_patches_and_their_points(tmp_path: Path) -> None:
    """The brightest voxels of a patch lie at its vertebrae, whose numbers tell how bright: through files, axes and spacing."""
    root = copy_bundle(BUNDLE, tmp_path)
    parser = workflow(root, "train").parser
    crop = next(t for t in parser["augmentation"] if str(t["_target_"]).endswith("RandCropByLandmarksd"))
    flow = workflow(root, "train", patches_per_image=4, augmentation=[{**crop, "pos": 1, "neg": 0}])
    flow.initialize()
    for patches in (flow.train_dataset[0], flow.train_dataset[1]):
        for patch in patches:
            image, points = patch["image"][0], patch["label"][0]
            assert points.shape == (25, 3) and int(points.isfinite().all(-1).sum()) == 6
            inside = ((points >= 1) & (points <= 30)).all(dim=1)
            for number in inside.nonzero()[:, 0].tolist():
                value = float(image[tuple(points[number].round().long())]) * 2048 + 100
                assert value == pytest.approx(80 * (number + 1), rel=0.1)


def test_only_vertebrae_wholly_seen_have_a_place(tmp_path: Path) -> None:
    """The next one at either end is neither learned as present nor as absent; all others are absent."""
    parser = ConfigParser()
    parser.read_config(SOURCE / BUNDLE / "configs" / "train.json")
    parser.update({"bundle_root": str(SOURCE / BUNDLE)})
    loss = parser.get_parsed_content("loss_def")
    points = torch.full((1, 25, 3), torch.nan)
    points[0, 10:14] = 4.0
    maps = torch.ones(1, 25, 8, 8, 8, requires_grad=True)
    loss(maps, points).backward()
    untouched = (maps.grad == 0).flatten(2).all(-1)[0]
    assert untouched.nonzero()[:, 0].tolist() == [9, 14]


def test_parts_of_the_challenge(tmp_path: Path) -> None:
    root = copy_bundle(BUNDLE, tmp_path)
    data = root / "data"
    made = verse_datalist(data, tmp_path / "datalist.json", check=True)
    assert {section: len(made[section]) for section in ("training", "validation", "testing")} == {
        "training": 2,
        "validation": 2,
        "testing": 1,
    }
    (item,) = load_landmark_datalist(tmp_path / "datalist.json", "testing")
    assert Path(item["image"]).is_file() and len(item["label"]) == 25
    assert [name for name, point in zip(NAMES, item["label"]) if None not in point and np.isfinite(point).all()] == [
        VERSE_LANDMARKS[label - 1] for label in range(18, 24)
    ]
    with pytest.raises(ValueError, match="dataset-verse20training"):
        verse_datalist(data, editions=("verse20",))
    with pytest.raises(ValueError, match="'T0' is not a vertebra"):
        verse_datalist(data, names=["T0"])
    (data / "dataset-verse19test").rename(data / "dataset-03test")  # as VerSe'20 comes from its other address
    both = verse_datalist(data, editions=("verse19", "verse20"))
    assert "testing" not in verse_datalist(data) and both["testing"][0]["label"] == made["testing"][0]["label"]
    centroids = sorted((data / "dataset-verse19training").rglob("*_ctd.json"))[0]
    content = json.loads(centroids.read_text())
    content.append({"label": 28, "X": 3.0, "Y": 3.0, "Z": 3.0})
    centroids.write_text(json.dumps(content))
    assert len(verse_datalist(data)["training"]) == 2
    centroids.unlink()
    with pytest.raises(ValueError, match="no centroids of it"):
        verse_datalist(data)
