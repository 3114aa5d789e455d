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

"""The metadata holds what MONAI requires and is true of the network, and trained networks can be exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ckpt_export, onnx_export, verify_metadata, verify_net_in_out
from monai.data import load_net_with_metadata
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from small_bundles import BUNDLES, PICTURES, SOURCE, metadata, one_per_network, run, small

import monai_landmarks

SCHEMA = Path(__file__).with_name("meta_schema.json")
PINS = {
    canonicalize_name(pin.name): next(iter(pin.specifier)).version
    for pin in map(Requirement, (SOURCE.parent / "constraints.txt").read_text().splitlines()[2:])
    if pin.marker is None or pin.marker.evaluate({"python_version": "3.10"})  # the oldest Python, on which bundles run
}


def files(root: Path) -> dict[str, Any]:
    """What MONAI's commands are given."""
    return {"meta_file": str(root / "configs/metadata.json"), "config_file": str(root / "configs/inference.json")}


def changes() -> list[tuple[str, Any]]:
    """Faults of metadata, None for an absent entry."""
    tensor = "network_data_format::outputs::pred::"
    return [
        *[(key, None) for key in ("version", "changelog", "authors", "network_data_format", "schema")],
        (f"{tensor}num_channels", "37"),
        (f"{tensor}channel_def", None),
        (f"{tensor}spatial_shape", [-1, "n"]),
        ("monai_version", 1.6),
        ("optional_packages_version", {}),
    ]


@pytest.mark.parametrize("bundle", BUNDLES)
def test_metadata_follows_the_specification(bundle: str) -> None:
    # MONAI would download its schema; the file given is taken instead, because it exists
    verify_metadata(files(SOURCE / bundle)["meta_file"], filepath=SCHEMA)


@pytest.mark.parametrize("key, value", changes())
def test_faults_are_found(tmp_path: Path, key: str, value: Any) -> None:
    content = metadata(BUNDLES[0])
    *parents, last = key.split("::")
    place = content
    for parent in parents:
        place = place[parent]
    if value is None:
        del place[last]
    else:
        place[last] = value
    (tmp_path / "metadata.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="Failed validating|must provide the `schema`"):
        verify_metadata(str(tmp_path / "metadata.json"), filepath=SCHEMA)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_metadata_is_true(bundle: str) -> None:
    content = metadata(bundle)
    pred = content["network_data_format"]["outputs"]["pred"]
    names = list(pred["channel_def"].values())
    assert len(set(names)) == len(names) == pred["num_channels"]
    points = content["network_data_format"]["post_processed_outputs"]["pred_points"]
    assert points["spatial_shape"] == [len(names), 2 if bundle in PICTURES else 3]
    assert content["version"] in content["changelog"]


@pytest.mark.parametrize("bundle", BUNDLES)
def test_versions_are_those_tested(bundle: str) -> None:
    content = metadata(bundle)
    packages = dict(content["required_packages_version"])
    assert packages.pop("monai_landmarks") == monai_landmarks.__version__
    packages |= {
        "monai": content["monai_version"],
        "torch": content["pytorch_version"],
        "numpy": content["numpy_version"],
    }
    assert packages == {name: PINS[canonicalize_name(name)] for name in packages}


@pytest.mark.parametrize("bundle", BUNDLES)
def test_documents_and_licenses(bundle: str) -> None:
    root = SOURCE / bundle
    assert (root / "LICENSE").read_text() == (SOURCE.parent / "LICENSE").read_text()
    for name in ("README.md", "data_license.txt"):
        assert len((root / "docs" / name).read_text()) > 200, name


@pytest.mark.parametrize("bundle", BUNDLES)
def test_network_has_the_inputs_and_outputs_stated(bundle: str) -> None:
    options = {**files(SOURCE / bundle), "bundle_root": str(SOURCE / bundle), "device": "meta"}
    with torch.device("meta"):  # only the shapes are computed
        for n in (1, 2):
            verify_net_in_out("network_def", **options, n=n)


@pytest.mark.parametrize("trained", one_per_network(BUNDLES), indirect=True)
def test_export_to_torchscript(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.ts"
    weights = str(trained / "models" / "model.pt")
    ckpt_export("network_def", str(path), ckpt_file=weights, **files(trained), **small(trained))
    exported, meta, _ = load_net_with_metadata(str(path))
    assert meta["network_data_format"] == metadata(trained.name)["network_data_format"]
    image = torch.randn(2, 1, *([64, 96] if trained.name in PICTURES else [32, 48, 40]))
    with torch.no_grad():
        torch.testing.assert_close(exported.eval()(image), network(trained, tmp_path)(image))


def network(trained: Path, out: Path) -> torch.nn.Module:
    """The network as inference has loaded it."""
    suffixes = (".png", ".jpg", ".gz")
    images = str(next(path for path in sorted((trained / "data").rglob("*")) if path.suffix in suffixes))
    return run(trained, "inference", dataset_dir=images, output_dir=str(out)).network_def.eval()


@pytest.mark.parametrize("trained", ["ceph_xray_landmarks_adaptive"], indirect=True)
def test_export_to_onnx(trained: Path, tmp_path: Path) -> None:
    """Only one export, because it takes long. The other networks are exported in the tests of the networks."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path / "model.onnx"
    options = {"ckpt_file": str(trained / "models" / "model.pt"), "input_shape": [1, 1, 64, 64]}
    onnx_export("network_def", str(path), **options, **files(trained), **small(trained))
    image = torch.randn(1, 1, 64, 64)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(result, network(trained, tmp_path)(image).numpy(), atol=1e-4)
