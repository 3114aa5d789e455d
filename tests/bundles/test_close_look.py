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
"""Training, resuming, evaluation, inference and export of the close look, which is added to another configuration."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ckpt_export
from monai.data import MetaTensor
from monai.transforms import Resize, ResizeWithPadOrCrop
from small_bundles import BUNDLES, PICTURES, SIZE, SOURCE, copy_bundle, run, small, table, training_size

from monai_landmarks.data import bundle_component, bundle_landmark_names, read_landmarks

pytestmark = pytest.mark.usefixtures("unpainted")

CLOSE = [bundle for bundle in BUNDLES if (SOURCE / bundle / "configs" / "close_look.json").is_file()]
# each method in two dimensions, and one bundle in three whose vertebrae share a channel
WITH = [bundle for bundle in CLOSE if bundle.startswith("ceph")] + ["lumbar_mri_landmarks_scn"]


def coarse_file(root: Path) -> Path:
    """A configuration file that makes the coarse network and its training small."""
    path = root / "configs" / "small.json"
    options = small(root, **training_size(root, epochs=2))
    path.write_text(json.dumps({key: value for key, value in options.items() if key != "bundle_root"}))
    return path


def dims(root: Path) -> int:
    return 2 if root.name in PICTURES else 3


def options(root: Path, epochs: int = 2, **more: Any) -> dict[str, Any]:
    close = json.loads((root / "configs" / "close_look.json").read_text())
    coarse_configs = re.findall(r"configs/\w+\.json", " ".join(close["coarse_config"]))
    return {
        "coarse_config": [str(root / path) for path in coarse_configs] + [str(coarse_file(root))],
        "network_def": close["network_def"],
        "fine_network_def#features": [8] * 6,
        **({"spatial_size": [2 * n for n in SIZE], "close_spacing": 0.3} if root.name in PICTURES else {}),
        "close_size": [32] * dims(root),
        "patches_per_image": 2,
        "displacement": 0.5,
        "far_displacement": 2.0,
        **training_size(root, epochs=epochs),
        **more,
    }


def own_datalist(root: Path) -> dict[str, Any]:
    """A datalist of three images, as a user passes one."""
    every = bundle_component(
        "datalist", root / "configs/train.json", bundle_root=str(root), dataset_dir=str(root / "data")
    )
    return {**every, "training": every["training"][:2], "validation": every["validation"][:1], "testing": []}


@pytest.mark.parametrize("bundle", CLOSE)
def test_the_coarse_training_has_the_same_data_and_machine(bundle: str) -> None:
    given = {"datalist": "my.json", "device": torch.device("meta"), "precision": "float16", "num_workers": 3}
    given |= {"cache_workers": 1, "seed": 5, "deterministic": True, "resume": True, "dataset_dir": "data"}
    configs = SOURCE / bundle / "configs"
    parser = ConfigParser()
    parser.read_config([configs / "train.json", configs / "close_look.json"])
    assert set(given) < set(json.loads((configs / "train.json").read_text()))
    parser.update({"bundle_root": str(SOURCE / bundle), "coarse_training#_target_": "builtins.dict", **given})
    reached = parser.get_parsed_content("coarse_training")
    assert {key: reached[key] for key in given} == given
    coarse = parser.get_parsed_content("coarse_inferer")
    assert getattr(coarse, "precision", None) == "float16" or coarse.inferer.precision == "float16"


def on_grid(image: torch.Tensor, size: list[int]) -> Any:
    """As a network that sees the whole image is trained."""
    resized = Resize(max(size), size_mode="longest", mode="bilinear", anti_aliasing=True)(image)
    return ResizeWithPadOrCrop(size, mode="edge")(resized)


@pytest.mark.parametrize(
    ("bundle", "setting"),
    [
        *((bundle, "train") for bundle in CLOSE if bundle.startswith("ceph")),
        ("ceph_xray_landmarks_scn", "full"),
        ("ceph_xray_landmarks_scn", "published"),
        ("ceph_xray_landmarks_adaptive", "full"),
        ("ceph_xray_landmarks_farnet", "full"),
    ],
)
def test_the_coarse_network_sees_the_pixels_it_was_trained_on(bundle: str, setting: str) -> None:
    parser = ConfigParser()
    parser.read_config([SOURCE / bundle / "configs" / f"{name}.json" for name in ("train", "close_look")])
    files = [str(SOURCE / bundle / "configs" / f"{name}.json") for name in dict.fromkeys(("train", setting))]
    parser.update({"bundle_root": str(SOURCE / bundle), "coarse_config": files})
    image = MetaTensor(torch.rand(1, 645, 800), affine=torch.diag(torch.tensor([0.3, 0.3, 1.0, 1.0])))
    close = on_grid(image, parser.get_parsed_content("spatial_size"))
    coarse = parser.get_parsed_content("coarse_grid")(close)
    size = bundle_component("spatial_size", files)
    trained = on_grid(image, size)
    assert coarse.shape == trained.shape
    np.testing.assert_allclose(coarse.affine.diagonal()[:2], trained.affine.diagonal()[:2], rtol=3e-3)
    if setting == "train":  # grids of the same proportions: nothing is cut off or added, as for the shipped weights
        expected: Any = Resize(size, mode="bilinear", anti_aliasing=True)(close)
        assert torch.equal(coarse.as_tensor(), expected.as_tensor()) and torch.equal(coarse.affine, expected.affine)


@pytest.mark.parametrize("bundle", WITH)
def test_a_close_look_from_training_to_points(bundle: str, tmp_path: Path) -> None:
    root = copy_bundle(bundle, tmp_path)
    models, curve = root / "models", root / "eval/training_curve.csv"
    datalist: Any = own_datalist(root)
    if bundle in PICTURES:  # a datalist is a file or its content
        (tmp_path / "datalist.json").write_text(json.dumps(datalist))
        datalist = str(tmp_path / "datalist.json")
    run(root, "train", "close_look", **options(root, datalist=datalist))
    assert {path.name for path in models.iterdir()} >= {"coarse", "model.pt", "training_state.pt"}
    assert len(table(curve)) == len(table(root / "eval/coarse/training_curve.csv")) == 2
    for half in ("eval", "eval/coarse"):
        assert len(table(root / half / "errors_per_image.csv")) == 1

    # the coarse network is the one that was trained first, and it is in the weights of both
    weights = torch.load(models / "model.pt", weights_only=True)
    for name, values in torch.load(models / "coarse/model.pt", weights_only=True).items():
        assert torch.equal(weights[f"coarse.{name}"], values), name

    # either half goes on; the one that is complete stays as it is
    written = (models / "coarse/model.pt").read_bytes()
    run(root, "train", "close_look", resume=True, **options(root, epochs=3, datalist=datalist))
    assert [row["epoch"] for row in table(curve)] == ["1", "2", "3"]
    assert (models / "coarse/model.pt").read_bytes() == written
    assert torch.load(models / "coarse/training_state.pt", weights_only=True)["trainer"]["epoch"] == 2

    # alone, the fine network is trained again with the coarse one of before
    run(root, "train", "close_look", run_id="fine_training", **options(root, epochs=1, datalist=datalist))
    assert len(table(curve)) == 1 and (models / "coarse/model.pt").read_bytes() == written

    run(root, "train", "close_look", "evaluate", **options(root, datalist=datalist, section="validation"))
    assert table(root / "eval/validation/metrics.csv")

    images = tmp_path / "images"
    images.mkdir()
    for image in sorted((root / "data" / "images").iterdir())[:2]:
        shutil.copy(image, images)
    flow = run(root, "inference", "close_look", **options(root, dataset_dir=str(images)))
    found = sorted((root / "eval/inference").glob("*.mrk.json"))
    assert len(found) == 2
    landmarks = read_landmarks(found[0])
    assert list(landmarks.names) == bundle_landmark_names(root / "configs/metadata.json")
    assert np.isfinite(landmarks.points).all()

    exported = tmp_path / "model.ts"
    ckpt_export(
        "network_def",
        filepath=str(exported),
        ckpt_file=str(models / "model.pt"),
        meta_file=str(root / "configs/metadata.json"),
        config_file=[str(root / f"configs/{name}.json") for name in ("inference", "close_look")],
        input_shape=[1, 1, *[32] * dims(root)],
        **{key: value for key, value in options(root, bundle_root=str(root)).items() if "epoch" not in key},
    )
    network, inferer = (flow.parser.get_parsed_content(name) for name in ("network", "inferer"))
    batch = next(iter(flow.parser.get_parsed_content("dataloader")))["image"]
    scripted = torch.jit.load(exported).eval()
    by_export, by_network = inferer(batch, scripted), inferer(batch, network.eval())
    for name, close in (("points", 1e-3), ("scores", 1e-3), ("covariances", 2e-2)):  # rounding widens flat peaks
        torch.testing.assert_close(by_export[name], by_network[name], atol=close, rtol=close)
