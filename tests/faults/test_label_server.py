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

"""Hostile requests to the label server: nothing outside the studies is read, written or removed, and the server goes on.

``MONAI_LANDMARKS_FUZZ`` is the number of random requests, 100 if it is not set; 20000 take some minutes::

    MONAI_LANDMARKS_FUZZ=20000 pytest tests/faults/test_label_server.py -k random
"""

from __future__ import annotations

import io
import json
import os
import random
import tarfile
import threading
import urllib.parse
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from label_data import NAMES, SHAPES, random_points, write_bundle_of_spots, write_image

from monai_landmarks.apps.label_app import make_app
from monai_landmarks.data import LandmarkSet, write_landmarks
from monai_landmarks.label import datastore as datastore_module
from monai_landmarks.label.gate import Access, Gate

pytest.importorskip("monailabel", reason="MONAI Label is not installed; ./setup.sh label installs it")
from monailabel.config import settings
from starlette.testclient import TestClient

RANDOM_REQUESTS = int(os.environ.get("MONAI_LANDMARKS_FUZZ", "100"))
URL = "http://127.0.0.1:8000"
MODEL = "pictures"
HOSTILE_NAMES = (
    "../outside/secret",
    "..",
    ".",
    "/nowhere/secret",
    "a/b",
    "..\\x",
    "a\x00b",
    "a\nb",
    ".hidden",
    "x" * 300,
)


# check_sum and output are compared with fixed values; images and token are not used
NOT_NAMES = ("check_sum", "output", "images", "token")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Run the application of the label server in this process, with two images, and files outside the studies."""
    root = tmp_path_factory.mktemp("site")
    generator = np.random.default_rng(0)
    points = random_points(generator, SHAPES[2])
    for path in ("studies/one.png", "studies/two.png", "outside/secret.png"):
        write_image(root / path, points)
    (root / "outside" / "labels").mkdir()
    world = np.diag([-1.0, -1.0, 1.0, 1.0])
    good = root / "good.mrk.json"
    write_landmarks(good, LandmarkSet(NAMES, points, "index").to_world(world).to("LPS"))
    (root / "outside" / "labels" / "one.mrk.json").write_bytes(good.read_bytes())
    (root / "studies" / "link.png").symlink_to(root / "outside" / "secret.png")
    (root / "studies" / "labels").mkdir()
    (root / "studies" / "labels" / "linked").symlink_to(root / "outside" / "labels")
    write_bundle_of_spots(root / "bundles" / MODEL, ".png")
    app = make_app(root / "app")
    for folder in ("model", "logs"):
        (app / folder).mkdir()
    (app / "logs" / "app.log").write_text("nothing\n")
    values = {
        "MONAI_LABEL_APP_DIR": str(app),
        "MONAI_LABEL_STUDIES": str(root / "studies"),
        "MONAI_LABEL_APP_CONF": {"models": str(root / "bundles" / MODEL)},
        "MONAI_LABEL_AUTO_UPDATE_SCORING": False,
        "MONAI_LABEL_DATASTORE_AUTO_RELOAD": False,
        "MONAI_LABEL_SESSION_PATH": str(root / "sessions"),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setattr(settings, name, value)
        patch.setattr("monailabel.interfaces.app.Timeloop.start", lambda *_args, **_more: None)
        from monai_landmarks.label.asgi import app as application

        with TestClient(application, base_url=URL, raise_server_exceptions=False, follow_redirects=False) as client:
            yield SimpleNamespace(
                root=root, studies=root / "studies", client=client, good=good, application=application
            )


@pytest.fixture
def client(site: SimpleNamespace) -> TestClient:
    return site.client


@pytest.fixture(autouse=True)
def nothing_changes_outside(site: SimpleNamespace) -> Iterator[None]:
    """Compare all files outside the studies before and after each test."""

    def contents() -> dict[str, Any]:
        files = {path.relative_to(site.root): path for path in site.root.rglob("*") if path.is_file()}
        # the studies, and what a server writes by itself
        others = [name for name in files if not {"studies", "sessions", ".cache"} & set(name.parts)]
        return {str(name): files[name].read_bytes() for name in others}

    before = contents()
    assert "outside/secret.png" in before
    yield
    assert contents() == before
    assert (site.studies / "one.png").is_file() and (site.studies / "link.png").is_symlink()


def is_refused(answer: Any, *statuses: int) -> bool:
    """Return whether an answer is an error of the client, with one sentence."""
    assert 400 <= answer.status_code < 500, f"{answer.request.url}: {answer.status_code} {answer.text[:300]}"
    if answer.request.method != "HEAD":
        detail = answer.json()["detail"]
        assert isinstance(detail, str) and len(detail) > 8, answer.text
    return not statuses or answer.status_code in statuses


def image_file(site: SimpleNamespace, name: str = "new.png") -> dict[str, Any]:
    return {"file": (name, (site.studies / "one.png").read_bytes())}


def label_file(site: SimpleNamespace) -> dict[str, Any]:
    return {"label": ("label.mrk.json", site.good.read_bytes())}


def takes_text(schema: dict[str, Any]) -> bool:
    return "string" in [schema.get("type"), *(one.get("type") for one in schema.get("anyOf", []))]


def routes(site: SimpleNamespace) -> list[tuple[str, str, list[str]]]:
    """Return method, path, and names of the parameters of each route that takes a name, from the server itself."""
    application = getattr(site.application, "app", site.application)
    found = []
    for path, methods in application.openapi()["paths"].items():
        for method, about in methods.items():
            names = [entry["name"] for entry in about.get("parameters", []) if takes_text(entry["schema"])]
            found.append((method.upper(), path, [name for name in names if name not in NOT_NAMES]))
    for method, path, names in (
        ("PUT", "/datastore/", ["image"]),
        ("DELETE", "/datastore/", ["id"]),
        ("PUT", "/datastore/updatelabelinfo", ["label", "tag"]),
        ("POST", "/infer/wsi/{model}", ["model", "image", "session_id"]),
    ):
        found.append((method, path, names))
    return [route for route in found if route[2]]


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=ascii)
def test_no_parameter_of_any_route_takes_more_than_a_name(site: SimpleNamespace, name: str) -> None:
    seen = 0
    for method, path, names in routes(site):
        for hostile in names:
            values = {"model": MODEL, "image": "one", "label": "one", "id": "one", "tag": "final", hostile: name}
            values.setdefault("strategy", "random")
            values.setdefault("method", "landmark_uncertainty")
            quoted = {key: urllib.parse.quote(value, safe="").replace(".", "%2E") for key, value in values.items()}
            url = path.format_map({**quoted, "session_id": quoted.get("session_id", "none")})
            query = {key: values[key] for key in names if f"{{{key}}}" not in path and key in values}
            form = method == "PUT" or "/infer/" in path and "batch" not in path
            if path.endswith("/wsi/{model}"):
                answer = site.client.request(method, url, params=query, json={})
            elif form:
                files = (
                    label_file(site) if path.endswith("/label") else image_file(site) if method == "PUT" else {"x": b""}
                )
                answer = site.client.request(method, url, params=query, files=files)
            else:
                answer = site.client.request(method, url, params=query)
            if answer.status_code == 404 and "/" in name and f"{{{hostile}}}" in path:
                continue  # no route has such a path
            assert is_refused(answer), (method, path, hostile)
            seen += 1
    assert seen > 20


def test_uploads_and_removals_through_paths(site: SimpleNamespace, client: TestClient) -> None:
    for image in ("../../x", "../x", str(site.root / "x"), "a/../../x"):
        assert is_refused(client.put("/datastore/", params={"image": image}, files=image_file(site)), 400)
        assert is_refused(client.delete("/datastore/", params={"id": image}), 400, 404)
    for tag in (str(site.root / "tag"), "../../../tag", "final/../../../tag"):
        assert is_refused(
            client.put("/datastore/label", params={"image": "one", "tag": tag}, files=label_file(site)), 400
        )
    for name, status in (("datastore_v2.json", 400), ("labels", 400), (".lock", 400)):
        assert is_refused(client.put("/datastore/", files=image_file(site, name)), status)
    client.get("/datastore/?output=all").raise_for_status()


def test_links_do_not_lead_out(site: SimpleNamespace, client: TestClient) -> None:
    assert "link" not in client.get("/datastore/?output=all").json()["objects"]
    for method, path, query in (
        ("GET", "/datastore/image", {"image": "link"}),
        ("DELETE", "/datastore/image", {"id": "link"}),
        ("GET", "/datastore/label", {"label": "one", "tag": "linked"}),
        ("DELETE", "/datastore/label", {"id": "one", "tag": "linked"}),
        ("POST", f"/infer/{MODEL}", {"image": "link"}),
    ):
        assert is_refused(client.request(method, path, params=query), 403, 404), path
    assert is_refused(client.put("/datastore/", params={"image": "link"}, files=image_file(site)), 403)
    label = client.put("/datastore/label", params={"image": "one", "tag": "linked"}, files=label_file(site))
    assert is_refused(label, 403)


def test_archive_of_the_labels_has_no_file_from_elsewhere(
    site: SimpleNamespace, client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert client.put("/datastore/label?image=two", files=label_file(site)).status_code == 200
    with zipfile.ZipFile(io.BytesIO(client.get("/datastore/dataset").content)) as archive:
        assert sorted(archive.namelist()) == ["image/two.png", "label/two.mrk.json", "metadata.json"]
    with monkeypatch.context() as patch:  # the datastore of another app, which follows links
        patch.setattr(datastore_module.LandmarkDatastore, "_only_inside", lambda self, path: path)
        label = site.studies / "labels" / "final" / "two.mrk.json"
        label.unlink()
        label.symlink_to(site.root / "outside" / "labels" / "one.mrk.json")
        assert is_refused(client.get("/datastore/dataset"), 403)
        assert is_refused(client.get("/datastore/label?label=two&tag=final"), 403)
        label.unlink()
    client.delete("/datastore/label?id=two&tag=final")
    assert list(tmp_path.iterdir()) == []  # the archive is removed after it was sent


def test_inference_reads_only_images_of_the_studies(site: SimpleNamespace, client: TestClient) -> None:
    secret = str(site.root / "outside" / "secret.png")  # below the folder for temporary files
    for query, form in (
        ({"image": secret}, {}),
        ({"image": "one"}, {"params": json.dumps({"image": secret})}),
        ({"session_id": "../outside"}, {}),
        ({"image": "one"}, {"params": json.dumps({"session": {"image": secret}})}),
        ({"image": "one"}, {"params": json.dumps({"label_tag": "../../x", "save_label": True})}),
        ({"image": "one"}, {"params": json.dumps({"result_extension": "/../x.json"})}),
        ({"image": "one"}, {"params": json.dumps({"model_filename": "../../x.pt"})}),
    ):
        assert is_refused(client.post(f"/infer/{MODEL}", params=query, data=form), 400, 404)
    sent = client.post(f"/infer/{MODEL}?output=json", files=image_file(site))
    assert len(sent.json()["landmarks"]) == 2
    assert client.post(f"/infer/{MODEL}?output=json&image=one").json()["landmarks"] == sent.json()["landmarks"]


def test_checks_hold_under_the_server_of_monai_label(site: SimpleNamespace) -> None:
    from monailabel.app import app as other
    from monailabel.interfaces.utils.app import app_instance

    app_instance().on_init_complete()  # as that server does at its start
    client = TestClient(other, base_url=URL, raise_server_exceptions=False)
    secret = str(site.root / "outside" / "secret.png")
    assert is_refused(client.post(f"/infer/{MODEL}", params={"image": secret}), 404)
    assert is_refused(client.put("/datastore/", params={"image": "../x"}, files=image_file(site)), 400)
    assert len(client.post(f"/infer/{MODEL}?output=json&image=one").json()["landmarks"]) == 2
    assert client.get("/info/").status_code == 200


def test_settings_are_no_code(site: SimpleNamespace, client: TestClient) -> None:
    code = f"$open({str(site.root / 'ran')!r}, 'w').close()"
    for settings_sent in (
        {"max_epochs": code},
        {"device": code},
        {"displayable": {"a": [code]}},
        {"max_epochs": {"_target_": "os.system", "command": "true"}},
        {"bundle_path": str(site.root)},
        {"tracking_uri": "http://example.org"},
    ):
        for path in (f"/train/{MODEL}", f"/batch/infer/{MODEL}", "/scoring/landmark_uncertainty"):
            assert is_refused(client.post(path, params={"run_sync": True}, json=settings_sent), 400)
        form = {"params": json.dumps(settings_sent)}
        assert is_refused(client.post(f"/infer/{MODEL}", params={"image": "one"}, data=form), 400)
    assert not (site.root / "ran").exists()


def test_archives_are_not_unpacked(site: SimpleNamespace, client: TestClient) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo(str(site.root / "outside" / "planted"))
        entry.size = 1
        tar.addfile(entry, io.BytesIO(b"x"))
    answer = client.put("/session/?uncompress=true", files={"files": ("a.tar", archive.getvalue())})
    assert is_refused(answer, 400) and not (site.root / "outside" / "planted").exists()


def test_token_in_the_address(site: SimpleNamespace) -> None:
    """The module for 3D Slicer keeps a path in the address of a server, but does not send headers for images."""
    token = "0123456789abcdefghij"
    gate = Gate(getattr(site.application, "app", site.application), Access(token=token))
    client = TestClient(gate, base_url=URL, follow_redirects=False)
    for path in (
        "/info/",
        "/datastore/image?image=one",
        "/slicer_submit.py",
        "/docs",
        "/",
        "/openapi.json",
        "/favicon.ico",
    ):
        assert is_refused(client.get(path), 401)
        assert client.get(f"/{token}{path}").status_code == 200, path
        assert client.get(path, headers={"Authorization": f"Bearer {token}"}).status_code == 200, path
    assert urllib.parse.urlsplit(client.get(f"/{token}/info").headers["location"]).path == f"/{token}/info/"
    assert f'"/{token}/openapi.json"' in client.get(f"/{token}/").text.replace("'", '"')
    assert is_refused(client.put(f"/{token}/datastore/?image=..%2Fx", files=image_file(site)), 400)


WRONG = [
    ("POST", f"/infer/{MODEL}", {"params": {"image": "nobody"}}, 404, "no image 'nobody'"),
    ("POST", f"/infer/{MODEL}", {}, 400, "Neither Image nor File"),
    ("POST", "/infer/nothing", {"params": {"image": "one"}}, 404, "no model 'nothing'"),
    ("POST", f"/infer/{MODEL}", {"params": {"image": "one"}, "data": {"params": "{"}}, 400, "not valid JSON"),
    ("POST", f"/infer/{MODEL}", {"params": {"image": "one"}, "data": {"params": "[" * 5000}}, 400, "not valid JSON"),
    ("POST", f"/infer/{MODEL}", {"params": {"image": "one"}, "data": {"params": "[]"}}, 400, "must be a JSON object"),
    ("POST", f"/infer/{MODEL}", {"params": {"image": "one", "output": "dicom_seg"}}, 400, "DICOM"),
    ("POST", f"/infer/{MODEL}", {"params": {"session_id": "none"}}, 404, "no session 'none'"),
    ("POST", f"/train/{MODEL}", {"content": "{", "headers": {"content-type": "application/json"}}, 422, "JSON decode"),
    ("POST", f"/train/{MODEL}", {"json": []}, 422, "not valid"),
    ("POST", "/train/nothing", {}, 404, "no model 'nothing'"),
    ("POST", "/batch/infer/nothing", {}, 404, "no model 'nothing'"),
    ("POST", f"/batch/infer/{MODEL}", {"json": {"images": ["nobody"]}}, 404, "no image 'nobody'"),
    ("GET", "/datastore/image/info", {"params": {"image": "nobody"}}, 404, "no image 'nobody'"),
    ("PUT", "/datastore/image/info", {"params": {"image": "nobody"}, "data": {"info": "{}"}}, 404, "no image 'nobody'"),
    ("PUT", "/datastore/image/info", {"params": {"image": "one"}, "data": {"info": "[1]"}}, 400, "JSON object"),
    ("PUT", "/datastore/image/info", {"params": {"image": "one"}, "data": {"info": '{"a": NaN}'}}, 400, "nan"),
    (
        "PUT",
        "/datastore/image/info",
        {"params": {"image": "one"}, "data": {"info": r'{"a": "\ud800"}'}},
        400,
        "Unicode",
    ),
    ("PUT", "/datastore/image/info", {"params": {"image": "one"}, "data": {"info": "9" * 5000}}, 400, "not valid JSON"),
    ("DELETE", "/datastore/image", {"params": {"id": "nobody"}}, 404, "no image 'nobody'"),
    ("DELETE", "/datastore/label", {"params": {"id": "one", "tag": "final"}}, 404, "no label 'one'"),
    ("GET", "/datastore/dataset", {}, 400, "nothing to include"),
    ("GET", "/proxy/dicom/studies", {}, 404, "no DICOM server"),
    ("POST", "/proxy/dicom/wado/studies", {}, 404, "no DICOM server"),
    ("GET", "/session/none", {}, 404, "Not Found"),
    ("GET", "/model/nothing", {}, 404, "nothing"),
    ("PUT", "/model/nothing", {"files": {"file": ("a.pt", b"")}}, 404, "nothing"),
    ("HEAD", "/datastore/image", {"params": {"image": "one", "check_sum": "MD2:0"}}, 400, ""),
    ("GET", "/logs/", {"params": {"lines": str(10**30)}}, 400, ""),
    ("POST", "/reload", {}, 404, ""),
]


@pytest.mark.parametrize("method, path, more, status, message", WRONG, ids=lambda value: str(value)[:40])
def test_wrong_requests_are_answered_with_a_sentence(
    client: TestClient, method: str, path: str, more: dict[str, Any], status: int, message: str
) -> None:
    answer = client.request(method, path, **more)
    assert answer.status_code == status, answer.text
    assert message in (answer.json()["detail"] if method != "HEAD" else "")
    assert client.get("/datastore/?output=all").status_code == 200


def test_information_of_others_does_not_stop_the_queue(client: TestClient) -> None:
    for strategy in ({"a": 1}, {"a": {"ts": "yesterday"}}, "text", {"a": {"ts": None}}):
        answer = client.put(
            "/datastore/image/info", params={"image": "two"}, data={"info": json.dumps({"strategy": strategy})}
        )
        assert answer.status_code == 200
        if isinstance(strategy, dict):
            assert client.post("/activelearning/random", json={}).status_code == 200
    client.put("/datastore/image/info", params={"image": "two"}, data={"info": json.dumps({"strategy": {}})})


def label_text(suffix: str, count: int) -> str:
    """A label with many points: a table, a list of 3D Slicer, or keypoints of COCO."""
    if suffix == ".csv":
        return "label,x,y,z\n" + "\n".join(f"p{i},1,2,3" for i in range(count))
    if suffix == ".mrk.json":
        point = '{"label": "p", "position": [1, 2, 3]}'
        return f'{{"markups": [{{"type": "Fiducial", "controlPoints": [{", ".join([point] * count)}]}}]}}'
    return f'{{"annotations": [{{"keypoints": [{"1,2,2," * (count - 1)}1,2,2]}}]}}'


@pytest.mark.parametrize(
    "suffix, count, message",
    [
        (".csv", 400_000, "larger than the 4 MiB"),
        (".csv", 15_000, "points; the server accepts 10000"),
        (".mrk.json", 300_000, "larger than the 4 MiB"),
        (".mrk.json", 15_000, "points; the server accepts 10000"),
        (".json", 300_000, "points; the server accepts 10000"),
    ],
)
def test_label_with_very_many_points(client: TestClient, suffix: str, count: int, message: str) -> None:
    files = {"label": (f"label{suffix}", label_text(suffix, count).encode())}
    answer = client.put("/datastore/label?image=one", files=files)
    assert is_refused(answer, 413) and message in answer.json()["detail"]


@pytest.mark.parametrize("suffix", [".csv", ".mrk.json", ".json"])
def test_ten_thousand_points_are_read(client: TestClient, suffix: str) -> None:
    """They are refused for what they are, and not for their number."""
    files = {"label": (f"label{suffix}", label_text(suffix, 10_000).encode())}
    assert is_refused(client.put("/datastore/label?image=one", files=files), 400)


def test_others_are_served_while_a_label_is_read(
    site: SimpleNamespace, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, others_served = threading.Event(), threading.Event()

    def slow(*_: Any) -> Any:
        begun.set()
        assert others_served.wait(20)
        raise ValueError("read to the end")

    monkeypatch.setattr(datastore_module, "read_label", slow)
    answers: list[Any] = []
    thread = threading.Thread(
        target=lambda: answers.append(client.put("/datastore/label?image=one", files=label_file(site)))
    )
    thread.start()
    assert begun.wait(20)
    served = client.get("/logs/?text=true")
    others_served.set()
    thread.join()
    assert served.text == "nothing\n"
    assert is_refused(answers[0], 400) and "read to the end" in answers[0].text


def test_refused_uploads_leave_no_temporary_files(
    site: SimpleNamespace, client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert is_refused(client.put("/datastore/label?image=one", files={"label": ("label.mrk.json", b"{")}), 400)
    assert is_refused(client.put("/datastore/?image=new", files={"file": ("new.txt", b"text")}), 400)
    assert list(tmp_path.iterdir()) == []


def test_random_requests(site: SimpleNamespace, client: TestClient) -> None:
    """No answer is 5xx, and the fixture finds nothing changed outside the studies."""
    draw = random.Random(RANDOM_REQUESTS)
    table = routes(site)
    parts = [
        "..",
        ".",
        "/",
        "\\",
        "%2e%2e",
        "%2f",
        "\x00",
        "\n",
        "~",
        "$",
        "@",
        "one",
        "link",
        "final",
        "linked",
        "x" * 250,
    ]
    parts += [str(site.root / "outside"), "secret", ".png", "é", "\u202e", "{}", "'", '"', ";", "|", "*", " "]
    counts: dict[int, int] = {}

    def name() -> str:
        return "".join(draw.choices(parts, k=draw.randint(1, 4)))

    def value(depth: int = 0) -> Any:
        kind = draw.randrange(7 if depth < 3 else 4)
        if kind < 4:
            return [name(), draw.choice([-1, 0, 2**70, None, True]), f"${name()}", f"/{name()}"][kind]
        if kind == 4:
            return [value(depth + 1) for _ in range(draw.randrange(3))]
        keys = [
            "image",
            "model",
            "bundle_path",
            "_target_",
            "device",
            "max_epochs",
            "label_tag",
            "gpus",
            "session",
            name(),
        ]
        return {draw.choice(keys): value(depth + 1) for _ in range(draw.randrange(4))}

    for _ in range(RANDOM_REQUESTS):
        method, path, names = draw.choice(table)
        if "/train" in path or "/scoring" in path or "/batch" in path:
            if draw.random() < 0.5 or "{" not in path:
                continue
        fields = {"model": MODEL, "strategy": "random", "method": name(), "session_id": name()}
        filled = {
            # a valid model would start a process, except in an inference
            key: (
                name()
                if draw.random() < 0.7 or key == "model" and not path.startswith("/infer")
                else fields.get(key, "one")
            )
            for key in names
        }
        url = path
        for key in ("model", "strategy", "method", "session_id"):
            url = url.replace(f"{{{key}}}", urllib.parse.quote(filled.get(key, name()), safe=draw.choice(["", "/."])))
        query = {key: entry for key, entry in filled.items() if f"{{{key}}}" not in path}
        headers = {"host": name()} if draw.random() < 0.05 else {"origin": name()} if draw.random() < 0.05 else {}
        headers = {
            key: entry.encode("ascii", "ignore").decode().replace("\n", "").replace("\x00", "")
            for key, entry in headers.items()
        }
        content: dict[str, Any] = {}
        if draw.random() < 0.5:
            content["json"] = value()
        elif method == "PUT" or "infer" in path:
            text = json.dumps(value())
            content = {"data": {"params": text, "info": text, "wsi": text}}
            content["files"] = {draw.choice(["file", "files", "label"]): (name(), draw.randbytes(50))}
        try:
            answer = client.request(method, url, params=query, headers=headers, **content)
        except UnicodeError:
            continue
        counts[answer.status_code] = counts.get(answer.status_code, 0) + 1
        assert answer.status_code < 500, (method, url, query, headers, content, answer.text[:500])
    assert client.get("/datastore/?output=all").status_code == 200
    assert sum(counts.values()) > RANDOM_REQUESTS / 2
    print(f"{sum(counts.values())} random requests: {dict(sorted(counts.items()))}")
