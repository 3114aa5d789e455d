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

"""The bundles of this package in MONAI Label's app ``monaibundle``: a real server with the requests of viewers."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from label_data import NAMES, SHAPES, oblique, random_points, write_bundle_of_spots, write_image
from label_server import LabelServer
from monai.bundle import ConfigParser
from small_bundles import BUNDLES, PATCH, PICTURES, SIZE, SOURCE, metadata, network_def

from monai_landmarks.data import LandmarkSet, read_landmarks, write_landmarks
from monai_landmarks.metrics import PresenceThreshold

pytest.importorskip("monailabel", reason="MONAI Label is not installed; ./setup.sh label installs it")
from monailabel.client import MONAILabelClient

sitk = pytest.importorskip("SimpleITK")

STOCK_APP = Path(sys.prefix) / "monailabel" / "sample-apps" / "monaibundle"
SPOTS = "spots_ct_landmarks_scn"
TRAINED = [f"volume_{i}" for i in range(6)]
UNSEEN = "volume_7"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stock")


@pytest.fixture(scope="module")
def truth(home: Path) -> dict[str, LandmarkSet]:
    """Write volumes and a picture, and return the landmarks of the volumes in RAS mm."""
    random, result = np.random.default_rng(0), {}
    for number in range(8):
        points = random_points(random, SHAPES[3])
        write_image(home / "studies" / f"volume_{number}.nii.gz", points)
        result[f"volume_{number}"] = LandmarkSet(NAMES, points, "index").to_world(oblique())
    write_image(home / "studies" / "picture_0.png", random_points(random, SHAPES[2]))
    return result


@pytest.fixture(scope="module")
def server(home: Path, truth: dict[str, LandmarkSet]) -> Iterator[LabelServer]:
    """Run the app with all bundles of the package, small and untrained, and with one that confuses its two landmarks."""
    app = home / "app"
    shutil.copytree(STOCK_APP, app)
    (app / "model").mkdir(exist_ok=True)
    for bundle in BUNDLES:
        copy_untrained(bundle, app / "model" / bundle)
    write_bundle_of_spots(app / "model" / SPOTS, trained=False)
    with LabelServer(app, home / "studies", home / "home", {"models": ",".join([*BUNDLES, SPOTS])}) as running:
        yield running


def copy_untrained(bundle: str, folder: Path) -> None:
    """Copy a bundle of the package, with a small network and untrained weights."""
    shutil.copytree(SOURCE / bundle, folder, ignore=shutil.ignore_patterns("models", "eval", "data"))
    parser = ConfigParser()
    parser.read_config(folder / "configs" / "inference.json")
    size = (
        {"spatial_size": SIZE}
        if bundle in PICTURES
        else {"patch_size": PATCH, "voxel_spacing": 2.0, "precision": "float32"}
    )
    parser.update({"network_def": network_def(bundle), **size})
    ConfigParser.export_config_file(parser.config, str(folder / "configs" / "inference.json"))
    parser.update({"bundle_root": str(folder)})
    torch.manual_seed(0)
    (folder / "models").mkdir()
    PresenceThreshold(0.05, 1, 1, 1, 1).write(folder / "models" / "presence.json")  # some trainings write it
    torch.save(parser.get_parsed_content("network_def").state_dict(), folder / "models" / "model.pt")


def test_annotators_and_the_server_teach_each_other(
    server: LabelServer, truth: dict[str, LandmarkSet], tmp_path: Path
) -> None:
    """One test for all steps, because a server takes seconds to start and later steps need the trained model."""
    client = MONAILabelClient(server.url, tmpdir=str(tmp_path))
    check_nobody_else_is_answered(server)
    check_info(client.info(), truth[UNSEEN].names)
    for bundle in BUNDLES:
        found = (check_picture if bundle in PICTURES else check_volume)(server, client, bundle)
        names = metadata(bundle)["network_data_format"]["outputs"]["pred"]["channel_def"]
        assert [landmark["name"] for landmark in found["landmarks"]] == list(names.values())
    before = check_spots(server, client, truth[UNSEEN], tmp_path)
    check_bad_requests(server, tmp_path)
    assert client.next_sample("first", {})["id"] in {*truth, "picture_0"}

    correct_and_submit(client, truth, tmp_path)
    assert client.datastore()["objects"][TRAINED[0]]["labels"]["final"]["ext"] == ".mrk.json"
    assert {"total": 9, "completed": 6}.items() <= server.ask("GET", "/datastore/").items()
    check_training(server, client, truth["volume_6"], tmp_path)
    after = check_spots(server, client, truth[UNSEEN], tmp_path)
    assert after < 0.5 * before

    wanted = ["volume_6", UNSEEN]
    settings = {"images": wanted, "multi_gpu": False, "device": "cpu", "label_tag": "original"}
    done = server.ask("POST", f"/batch/infer/{SPOTS}?run_sync=true", json=settings)
    assert sorted(done) == wanted

    server.stop()
    server.start()
    client.set_server_url(server.url)
    assert check_spots(server, client, truth[UNSEEN], tmp_path) == pytest.approx(after)
    kept = client.datastore()["objects"]
    assert [image for image in sorted(kept) if "final" in kept[image]["labels"]] == [*TRAINED, "volume_6"]
    assert [image for image in sorted(kept) if "original" in kept[image]["labels"]] == wanted
    found = kept[UNSEEN]["labels"]["original"]["info"]["params"]["landmarks"]
    assert mean_error(found, truth[UNSEEN]) == pytest.approx(after)


def check_nobody_else_is_answered(server: LabelServer) -> None:
    """Neither other machines nor web pages of other servers can read the answers."""
    assert server.listens_on() == {"127.0.0.1"}
    answer = server.ask("GET", "/info/", None, headers={"Origin": "http://example.org"})
    assert "access-control-allow-origin" not in {key.lower() for key in answer.headers}


def check_info(info: dict[str, Any], names: tuple[str, ...]) -> None:
    assert set(info["models"]) == set(info["trainers"]) == {*BUNDLES, SPOTS}
    # which 3D Slicer's module offers
    assert {model["type"] for model in info["models"].values()} == {"segmentation"}
    assert info["models"][SPOTS]["labels"] == {name.lower(): i for i, name in enumerate(names)}


def infer(client: MONAILabelClient, image: str, model: str) -> tuple[Path, dict[str, Any]]:
    """Send the request of the module for 3D Slicer."""
    file, params = client.infer(model, image, {"result_extension": ".nrrd", "result_dtype": "uint16"})
    return Path(file), params


def check_picture(server: LabelServer, client: MONAILabelClient, bundle: str) -> dict[str, Any]:
    """Check the answer for a picture. Its pixels, and those of the label map, are LPS mm."""
    file, params = infer(client, "picture_0", bundle)
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
    assert labels.shape == SHAPES[2][::-1]
    check_balls(params, labels, lambda ras: np.rint(-ras[:2]).astype(int))
    return params


def check_volume(server: LabelServer, client: MONAILabelClient, bundle: str) -> dict[str, Any]:
    """Check the answer for a volume, with points in its world and balls on its grid."""
    file, params = infer(client, UNSEEN, bundle)
    labels, image = sitk.ReadImage(str(file)), sitk.ReadImage(str(server.studies / f"{UNSEEN}.nii.gz"))
    assert labels.GetSize() == image.GetSize()
    for of in (sitk.Image.GetOrigin, sitk.Image.GetSpacing, sitk.Image.GetDirection):
        np.testing.assert_allclose(of(labels), of(image), atol=1e-4)
    values = sitk.GetArrayFromImage(labels)
    check_balls(params, values, lambda ras: labels.TransformPhysicalPointToIndex((ras * (-1, -1, 1)).tolist()))
    return params


def check_spots(server: LabelServer, client: MONAILabelClient, truth: LandmarkSet, folder: Path) -> float:
    """Return the mean error in mm, which is the same in the list and in the markups."""
    params = check_volume(server, client, SPOTS)
    (folder / "found.mrk.json").write_text(json.dumps(params["markups"]))
    points = read_landmarks(folder / "found.mrk.json").to("RAS").points
    np.testing.assert_allclose(points, [one["position"] for one in params["landmarks"]])
    return mean_error(params["landmarks"], truth)


def mean_error(found: list[dict[str, Any]], truth: LandmarkSet) -> float:
    """In mm."""
    assert [one["name"] for one in found] == list(truth.names)
    return float(np.linalg.norm(np.array([one["position"] for one in found]) - truth.points, axis=1).mean())


def check_balls(params: dict[str, Any], labels: np.ndarray, index_of: Callable[[np.ndarray], Sequence[int]]) -> None:
    """The voxel of each landmark has its number. An untrained network puts some outside the image and some in one place."""
    indices = [
        None if one["position"] is None else tuple(index_of(np.array(one["position"])))[::-1]
        for one in params["landmarks"]
    ]
    for value, index in enumerate(indices, 1):
        if index is not None and all(0 <= i < n for i, n in zip(index, labels.shape)) and indices.count(index) == 1:
            assert labels[index] == value


def check_bad_requests(server: LabelServer, folder: Path) -> None:
    """MONAI Label's own app gives no reasons, but it continues to run."""
    assert server.ask("POST", f"/infer/{SPOTS}?image=nobody", None).status_code >= 400
    assert server.ask("POST", "/infer/no_model?image=volume_0", None).status_code >= 400
    assert server.ask("POST", f"/infer/{SPOTS}?image=picture_0", None).status_code >= 400
    (folder / "broken.mrk.json").write_text("{")
    assert server.save_label("nobody", folder / "broken.mrk.json", None).status_code >= 400
    assert server.answers()


def correct_and_submit(client: MONAILabelClient, truth: dict[str, LandmarkSet], folder: Path) -> None:
    """Submit the proposals with corrected points. In one image, the annotator leaves out a point."""
    for number, image in enumerate(TRAINED):
        _, params = infer(client, image, SPOTS)
        content = params["markups"]
        points = truth[image].to("LPS").points.tolist()
        for entry, point in zip(content["markups"][0]["controlPoints"], points, strict=True):
            entry.update(position=point, positionStatus="defined")
        if number == 3:
            content["markups"][0]["controlPoints"][1].update(position="", positionStatus="undefined")
        (folder / "corrected.mrk.json").write_text(json.dumps(content))
        client.save_label(image, str(folder / "corrected.mrk.json"))


def check_training(server: LabelServer, client: MONAILabelClient, further: LandmarkSet, folder: Path) -> None:
    """Train to the end, while annotators submit labels."""
    client.train_start(SPOTS, {"max_epochs": 40, "val_split": 0.2, "multi_gpu": False, "device": "cpu"})
    write_landmarks(folder / "further.mrk.json", further.to("LPS"))
    client.save_label("volume_6", str(folder / "further.mrk.json"))
    infer(client, UNSEEN, SPOTS)
    assert client.train_status(check_if_running=True)
    server.wait_until(lambda: not client.train_status(check_if_running=True), "finish the training")
    task = client.train_status()
    assert task["status"] == "DONE", task["details"]
