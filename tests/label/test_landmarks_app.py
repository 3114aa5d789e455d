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

"""The MONAI Label app of this package in a real server, with the requests of 3D Slicer's module and our script."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import requests
from click.testing import CliRunner
from label_data import NAMES, SHAPES, oblique, random_points, spots, write_bundle_of_spots, write_image
from label_server import LabelServer
from markups_schema import MARKUPS_SCHEMA
from slicer_stand_in import Node, Slicer

from monai_landmarks.apps.main import program
from monai_landmarks.data import LandmarkSet, write_landmarks
from monai_landmarks.label import slicer_submit

pytest.importorskip("monailabel", reason="MONAI Label is not installed; ./setup.sh label installs it")
from monailabel.client import MONAILabelClient

sitk = pytest.importorskip("SimpleITK")

SPREADS = {"wide": 3.2, "medium": 2.6, "small": 2.1, "smaller": 1.9, "smallest": 1.7}  # of the spots of the volumes
UNCERTAINTY = "landmark_uncertainty"


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory, write_dicom: Any) -> dict[str, np.ndarray]:
    """Write the images and return their index points, and their folder with the key "folder"."""
    studies = tmp_path_factory.mktemp("label") / "studies"
    random = np.random.default_rng(0)
    points: dict[str, Any] = {"folder": studies}
    for name, spread in SPREADS.items():
        points[name] = random_points(random, SHAPES[3])
        write_image(studies / f"{name}.nii.gz", points[name], spread)
    for name in ("gray.png", "print.jpg", "scan.tiff", "bitmap.BMP"):
        points[name] = random_points(random, SHAPES[2])
        write_image(studies / name, points[name])
    points["xray.dcm"] = random_points(random, SHAPES[2])
    pixels = spots(SHAPES[2], points["xray.dcm"])[..., None].round().astype(np.int16)
    write_dicom(studies.parent, pixels, "xray", positions=False)
    (studies.parent / "xray_0.dcm").rename(studies / "xray.dcm")
    return points


@pytest.fixture(scope="module")
def server(truth: dict[str, Any]) -> Iterator[LabelServer]:
    """Run a server with an untrained model for volumes, which confuses the two landmarks, and a trained one for pictures."""
    home = truth["folder"].parent
    for name, suffix, trained in (("volumes_detection", ".nii.gz", False), ("pictures", ".png", True)):
        write_bundle_of_spots(home / "bundles" / name, suffix, trained)
    result = CliRunner().invoke(program, ["label-app", str(home / "app")])
    assert result.exit_code == 0 and result.stdout == f"{home / 'app'}\n"
    models = ",".join(str(home / "bundles" / name) for name in ("volumes_detection", "pictures"))
    patch = pytest.MonkeyPatch()
    patch.setenv("MONAI_LABEL_AUTO_UPDATE_SCORING", "false")  # here every scoring is asked for
    with LabelServer(home / "app", truth["folder"], home / "home", {"models": models}) as running:
        yield running
    patch.undo()


@pytest.fixture
def client(server: LabelServer, tmp_path: Path) -> MONAILabelClient:
    return MONAILabelClient(server.url, tmpdir=str(tmp_path))


def read_points(path: str | Path) -> dict[str, list[float]]:
    """Return the positions of a markups file in LPS, read as plain JSON."""
    (node,) = json.loads(Path(path).read_text())["markups"]
    sign = {"LPS": 1, "RAS": -1}[node["coordinateSystem"]]
    return {p["label"]: [*(sign * np.array(p["position"][:2])), p["position"][2]] for p in node["controlPoints"]}


def world(points: np.ndarray) -> np.ndarray:
    """Convert index points of a volume to RAS mm."""
    return points @ oblique()[:3, :3].T + oblique()[:3, 3]


def label_file(path: Path, points: np.ndarray, system: str = "LPS", names: tuple[str, ...] = NAMES) -> Path:
    """Write a label of a volume with the landmarks in ``names``."""
    landmarks = LandmarkSet(NAMES, world(points), "RAS").to(system).reorder(names)
    write_landmarks(path, landmarks)
    return path


@pytest.mark.parametrize("image", ["gray.png", "print.jpg", "scan.tiff", "bitmap.BMP", "xray.dcm"])
def test_picture_in_the_world_where_itk_has_it(
    client: MONAILabelClient, truth: dict[str, Any], image: str, tmp_path: Path
) -> None:
    stem = image.partition(".")[0]
    file, params = client.infer("pictures", stem, {"result_extension": ".nrrd", "result_dtype": "uint8"})
    assert Path(file).name.startswith(f"{stem}-landmarks-") and file.endswith(
        ".mrk.json"
    )  # Slicer's name for the point list
    jsonschema.validate(json.loads(Path(file).read_text()), MARKUPS_SCHEMA)
    found = read_points(file)
    assert tuple(found) == NAMES
    sent, _ = client.infer("pictures", "", {}, file=str(truth["folder"] / image))  # of the annotator's own disk
    assert read_points(sent) == found
    seen = sitk.ReadImage(str(truth["folder"] / image))
    for name, pixel, plain in zip(NAMES, truth[image], params["landmarks"]):
        index = [*pixel.tolist(), 0][: seen.GetDimension()]
        expected = [*seen.TransformContinuousIndexToPhysicalPoint(index), 0][:3]
        np.testing.assert_allclose(found[name], expected, atol=0.1)
        np.testing.assert_allclose(plain["position"], np.array(found[name]) * (-1, -1, 1), atol=1e-6)
        assert plain["name"] == name and plain["score"] > 0 and plain["uncertainty_mm"] > 0


def test_day_of_annotation(
    server: LabelServer, client: MONAILabelClient, truth: dict[str, Any], tmp_path: Path
) -> None:
    volumes, model = {name: truth[name] for name in SPREADS}, "volumes_detection"

    def error(image: str) -> float:
        file, _ = client.infer(model, image, {})
        found = read_points(file)
        expected = world(volumes[image]) * (-1, -1, 1)
        return float(np.linalg.norm(np.array([found[name] for name in NAMES]) - expected, axis=1).max())

    # models, strategies and images
    info = client.info()
    assert list(info["models"]) == list(info["trainers"]) == [model, "pictures"]
    assert info["models"][model]["type"] == "detection" and info["models"][model]["labels"] == {
        NAMES[0]: 0,
        NAMES[1]: 1,
    }
    assert list(info["strategies"])[0] == UNCERTAINTY and list(info["scoring"]) == [UNCERTAINTY]
    assert info["datastore"] == {"total": 10, "completed": 0, "label_tags": {}}

    # a broken image does not stop the scoring of the others
    (truth["folder"] / "broken.nii.gz").write_bytes(b"no image")
    server.ask("GET", "/datastore/")
    server.wait_until(lambda: server.ask("GET", "/datastore/")["total"] == 11, "see the new image")
    before = error("small")
    assert before > 10
    scored = server.ask("POST", f"/scoring/{UNCERTAINTY}?run_sync=true", json={})
    assert [name for name in scored if "mm" in scored[name]] == sorted(SPREADS)
    assert "error" in scored["broken"] and "error" in scored["gray"]  # which is no volume
    assert server.ask("POST", f"/scoring/{UNCERTAINTY}?run_sync=true", json={}) == {}  # nothing has changed

    # the most uncertain first, and to one annotator only, even if two have the same name
    people = [MONAILabelClient(server.url, client_id=name) for name in ("ann", "bob", "ann", "user-xyz", "user-xyz")]
    served = [person.next_sample(UNCERTAINTY, {})["id"] for person in people]
    assert served == ["wide", "medium", "small", "smaller", "smallest"]

    # corrections, as people make them
    server.save_label("wide", label_file(tmp_path / "a.mrk.json", volumes["wide"]))
    server.save_label("medium", label_file(tmp_path / "b.mrk.json", volumes["medium"], "RAS", NAMES[::-1]))
    partial = server.save_label("small", label_file(tmp_path / "c.mrk.json", volumes["small"], names=NAMES[1:]))
    assert partial == {"image": "small", "label": "small", "landmarks": [NAMES[1]], "missing": [NAMES[0]]}
    assert client.info()["datastore"]["completed"] == 3

    # train; meanwhile, another label and another request arrive
    started = server.ask("POST", f"/train/{model}", json={"max_epochs": 30})
    client.save_label("smaller", str(label_file(tmp_path / "d.mrk.json", volumes["smaller"])))
    assert server.ask("POST", f"/train/{model}", expect=429, json={})["detail"]
    assert error("small") == pytest.approx(before, abs=1e-3)
    server.wait_until(lambda: server.ask("GET", "/train/")["status"] not in ("SUBMITTED", "RUNNING"), "train")
    task = server.ask("GET", "/train/")
    assert task["id"] == started["id"] and task["status"] == "DONE", "\n".join(task["details"])
    assert len(json.loads((server.app / "model" / model / "label_datalist.json").read_text())["training"]) == 3
    after = error("small")
    assert after < 1

    # many at once, as the server's own page asks for it, on a machine with or without a GPU
    answer = server.ask("POST", f"/batch/infer/{model}?images=unlabeled&run_sync=true", json={"multi_gpu": True})
    assert sorted(answer) == ["bitmap", "broken", "gray", "print", "scan", "smallest", "xray"]
    assert "error" in answer["broken"]
    original = client.download_label("smallest", "original")
    np.testing.assert_allclose(read_points(original)[NAMES[0]], world(volumes["smallest"])[0] * (-1, -1, 1), atol=0.5)

    # nothing is lost
    state = client.datastore()
    assert state["objects"]["wide"]["image"]["info"]["strategy"][UNCERTAINTY]["client_id"] == "ann"
    server.stop()
    server.start()
    client.set_server_url(server.url)
    again = client.datastore()
    assert again["objects"] == state["objects"] and client.info()["datastore"]["completed"] == 4
    assert error("small") == pytest.approx(after, abs=1e-3)
    assert client.next_sample(UNCERTAINTY, {}).get("id") not in SPREADS  # the last one is still with its annotator


BAD_LABELS = {
    "cut short": (lambda text: text[:300], "not valid JSON"),
    "foreign names": (lambda text: text.replace('"Bright"', '"Brigth"'), "no landmark 'Brigth', perhaps 'Bright'"),
    "no point list": (lambda text: '{"markups": []}', "no point list"),
    "ROI": (lambda text: '{"markups": [{"type": "ROI"}]}', "expected type 'Fiducial'"),
}


def test_bad_requests(server: LabelServer, truth: dict[str, Any], tmp_path: Path) -> None:
    good = label_file(tmp_path / "good.mrk.json", truth["smallest"])
    file = tmp_path / "bad.mrk.json"
    for change, message in BAD_LABELS.values():
        file.write_text(change(good.read_text()))
        assert message in server.save_label("smallest", file, 400)["detail"]
    other = label_file(file, truth["smallest"] + 1000)
    assert "no landmark lies in the image smallest.nii.gz" in server.save_label("smallest", other, 400)["detail"]
    (tmp_path / "mask.nii.gz").write_bytes(b"")
    assert "holds no landmarks" in server.save_label("smallest", tmp_path / "mask.nii.gz", 400)["detail"]
    assert "no image 'nobody'" in server.save_label("nobody", good, 404)["detail"]
    for path, status, message in (
        (f"/infer/pictures?image={Path(__file__)}", 404, "no image"),  # of this computer, but not of the studies
        ("/infer/pictures?image=smallest", 422, "cannot predict 'smallest'"),
        ("/train/nothing", 404, "no model 'nothing'"),
        ("/activelearning/nothing", 404, "no strategy 'nothing'"),
        ("/scoring/nothing?run_sync=true", 404, "no scoring 'nothing'"),
    ):
        assert message in server.ask("POST", path, expect=status)["detail"]
    assert "final" not in server.ask("GET", "/datastore/?output=all")["objects"]["smallest"]["labels"]
    assert server.answers()


def test_images_with_dots_in_their_names(server: LabelServer, truth: dict[str, Any]) -> None:
    """The name ends where the suffix of an image begins, as for images that are in the folder."""
    content = (truth["folder"] / "gray.png").read_bytes()
    names = ["1.2.840.1.png", "1.2.840.2.png"]
    for name in names:
        answer = server.ask("PUT", "/datastore/image", files={"file": (name, content)})
        assert answer["image"] == name.removesuffix(".png") and (truth["folder"] / name).read_bytes() == content
    again = server.ask("PUT", "/datastore/image", files={"file": (names[0], content)})
    assert again["image"] == "1.2.840.1"
    other = server.ask("PUT", "/datastore/image", 409, files={"file": (names[0], content + b"other")})
    assert "there is another image '1.2.840.1'" in other["detail"]
    for name in names:
        server.ask("DELETE", f"/datastore/?id={name.removesuffix('.png')}")
    server.ask("PUT", "/datastore/image", files={"file": (names[0], content + b"other")})  # the name is free
    server.ask("DELETE", "/datastore/?id=1.2.840.1")


def test_who_is_not_answered(server: LabelServer) -> None:
    """Over the network, in particular that a client that is still sending can read the answer."""
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        assert server.ask("GET", "/info/", 403, headers=headers)["detail"]
    point = b'{"label": "p", "position": [1, 2, 3]}, '
    label = b'{"markups": [{"controlPoints": [' + point * 300_000 + b"null]}]}"
    files = {"label": ("many.mrk.json", label)}
    whole = requests.Request("PUT", server.url, files=files).prepare()
    in_pieces = {"data": iter([whole.body]), "headers": {"Content-Type": whole.headers["Content-Type"]}}
    for body in ({"files": files}, in_pieces):  # with the length in the head of the request, and without
        answer = server.ask("PUT", "/datastore/label?image=smallest", 413, **body)
        assert "larger than the 4 MiB" in answer["detail"]
    assert server.answers()


def test_script_for_slicer(
    server: LabelServer,
    client: MONAILabelClient,
    truth: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = server.ask("GET", "/slicer_submit.py", expect=None)
    assert script.status_code == 200 and script.text == Path(slicer_submit.__file__).read_text()
    good = label_file(tmp_path / "good.mrk.json", truth["smaller"], names=NAMES[:1])
    bad = tmp_path / "bad.mrk.json"
    bad.write_text(good.read_text().replace("Bright", "Bricht"))
    other = label_file(tmp_path / "other.mrk.json", truth["smallest"])

    def make_slicer(image: str, lists: dict[str, Path]) -> Slicer:
        nodes = [Node(name, len(read_points(file)), file.read_text()) for name, file in lists.items()]

        def save(image: str, path: str, params: dict[str, Any]) -> Any:
            return client.save_label(image, path, params=params)

        slicer = Slicer(nodes, {"id": image}, save)
        monkeypatch.setitem(sys.modules, "slicer", slicer)
        return slicer

    lists = {"smaller_1-landmarks-x": other, "smaller-landmarks-x": bad, "smaller-landmarks-y": good}
    slicer = make_slicer("smaller", lists)
    space: dict[str, Any] = {"__name__": "console"}
    exec(script.text, space)
    whole = label_file(tmp_path / "whole.mrk.json", truth["smaller"])
    MONAILabelClient(server.url, client_id="bob").save_label("smaller", str(whole))
    answer = space["submit_landmarks"]()
    assert answer["landmarks"] == [NAMES[0]] and answer["missing"] == [NAMES[1]]
    copy = answer["replaced"]["copy"]
    assert answer["replaced"]["client_id"] == "bob" and (truth["folder"] / copy).read_text() == whole.read_text()
    text = f"smaller: 1 landmarks saved; left out: {NAMES[1]}; the label before is kept in {copy}"
    assert slicer.done == ["settings", text, "info"]
    assert [node.name for node in slicer.nodes if not node.visible] == ["smaller-landmarks-y"]

    assert space["submit_landmarks"]("smaller-landmarks-x") is None  # the server says why
    assert "no landmark 'Bricht', perhaps 'Bright'" in slicer.done[-1]
    slicer = make_slicer("wide", {"F": good, "G": bad})
    assert space["submit_landmarks"]() is None and "point lists 'F', 'G'" in slicer.done[-1]
    slicer.module.current_sample = None
    assert space["submit_landmarks"]() is None and "press Next Sample" in slicer.done[-1]
