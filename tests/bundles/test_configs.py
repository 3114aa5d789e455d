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

"""The configurations name what there is, hold no program, agree with each other, and have what MONAI requires."""

from __future__ import annotations

import ast
import builtins
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import monai
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import list_data_collate
from monai.utils.module import locate
from PIL import Image
from small_bundles import BUNDLES, PICTURES, SOURCE, metadata, small, training_size, workflow

CONFIGS = [path for path in sorted(SOURCE.glob("*/configs/*.json")) if path.name != "metadata.json"]
# of a configuration that is given alone; all others change one of these
WHOLE = ("train", "inference")
# "handlers#4", or "handlers#{i}" in Python; not a slice such as [1::2]
BY_NUMBER = re.compile(r"[A-Za-z_](?:#|::)(?:\d|\{)")
# expressions put references together; whatever decides or repeats belongs into the package, where it can be tested
EXPRESSION = (
    ast.Expression | ast.Name | ast.Attribute | ast.Call | ast.keyword | ast.Constant | ast.List | ast.BinOp | ast.Add
) | (ast.Mult | ast.UnaryOp | ast.Not | ast.Load)
TEST_OF_DEVICE = "torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')"  # MONAI's own habit


def strings(config: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """All strings in a configuration, each with the key it stands under."""
    if isinstance(config, dict):
        for name, value in config.items():
            yield from strings(value, name)
    elif isinstance(config, list):
        for value in config:
            yield from strings(value, key)
    elif isinstance(config, str):
        yield key, config


def named(path: Path) -> str:
    return f"{path.parents[1].name}/{path.stem}"


@pytest.mark.parametrize("path", CONFIGS, ids=named)
def test_targets_are_there(path: Path) -> None:
    locator = ConfigParser().locator
    for key, value in strings(json.loads(path.read_text())):
        if key == "_target_":
            module = locator.get_component_module_name(value) if "." not in value else ""
            target = locate(f"{module}.{value}" if module else value)
            assert callable(target), value
            assert target.__module__.split(".")[0] in ("monai", "monai_landmarks", "torch"), value


@pytest.mark.parametrize("path", CONFIGS, ids=named)
def test_expressions_only_put_references_together(path: Path) -> None:
    for _, value in strings(json.loads(path.read_text())):
        if not value.startswith("$") or value[1:] == TEST_OF_DEVICE:
            continue
        tree = ast.parse(re.sub(r"@[\w#:]+", "reference", value[1:]), mode="eval")
        for node in ast.walk(tree):
            assert isinstance(node, EXPRESSION), f"{type(node).__name__} in {value}"
            if isinstance(node, ast.Name):
                known = node.id in ("reference", "monai", "torch") or hasattr(builtins, node.id)
                assert known and node.id not in ("eval", "exec", "__import__"), f"{node.id} in {value}"
            if isinstance(node, ast.Attribute) and ast.unparse(node).split(".")[0] in ("monai", "torch"):
                value_of(ast.unparse(node))


@pytest.mark.parametrize("path", CONFIGS, ids=named)
def test_references_are_by_name(path: Path) -> None:
    """A number would name another handler as soon as one is put in before it."""
    for _, value in strings(json.loads(path.read_text())):
        assert not BY_NUMBER.search(value), value


def test_nothing_refers_to_the_lists_of_bundles_by_number() -> None:
    """Neither Python code nor lessons nor documents do."""
    root = SOURCE.parent
    for folder in ("monai_landmarks", "benchmarks", "notebooks", "bundles", "tools", "tests"):
        for path in (root / folder).rglob("*"):
            if path.suffix in (".py", ".md", ".json", ".yaml") and path != Path(__file__):
                found = BY_NUMBER.search(path.read_text(encoding="utf-8"))
                assert not found, f"{path}: {found and found.group()}"


def value_of(name: str) -> Any:
    """What a dotted name in a configuration means; fails where there is no such thing."""
    found: Any = {"monai": monai, "torch": torch}[name.split(".")[0]]
    for part in name.split(".")[1:]:
        found = getattr(found, part)
    return found


def test_train_and_inference_agree() -> None:
    for bundle in BUNDLES:
        train, inference = (json.loads((SOURCE / bundle / f"configs/{name}.json").read_text()) for name in WHOLE)
        for key in ("network_def", "network", "names", "normalization", "device", "precision"):
            assert train[key] == inference[key], f"{bundle}: {key}"
        for key in ("spatial_size", "voxel_spacing", "patch_size", "overlap", "foreground", "windows", "decoder"):
            assert train.get(key) == inference.get(key), f"{bundle}: {key}"
        decoding = train["validate"]["postprocessing"]
        reliability = ["@examiner", "@calibrator", "@probability"]  # what a validation is about to learn
        assert {**decoding, "transforms": decoding["transforms"] + reliability} == inference["postprocessing"], bundle
        assert train["inferer"] == inference["inferer"], bundle
        answer = {"_target_": "monai_landmarks.label.LandmarkResultd", "keys": "pred", "names": "@names"}
        assert inference["post_transforms"] == ["@postprocessing", {**answer, "refer_keys": "image"}], bundle
        load = "monai_landmarks.transforms.LoadLandmarksd"
        expected = [
            t for t in train["train"]["deterministic_transforms"] if not (isinstance(t, dict) and t["_target_"] == load)
        ]
        assert inference["preprocessing"]["transforms"] == expected, bundle


@pytest.mark.parametrize("bundle", PICTURES)
def test_a_damaged_image_does_not_end_an_inference(bundle: str, tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120), np.uint8)).save(tmp_path / "whole.png")
    (tmp_path / "damaged.png").write_bytes((tmp_path / "whole.png").read_bytes()[:-5000])
    parser = ConfigParser()
    parser.read_config(SOURCE / bundle / "configs" / "inference.json")
    parser.update({"bundle_root": str(SOURCE / bundle), "dataset_dir": str(tmp_path)})
    loader = parser.get_parsed_content("dataloader")
    assert [len(batch["image"]) for batch in loader] == [1]
    assert [Path(image).name for image, _ in loader.unreadable] == ["damaged.png"]


@pytest.mark.parametrize("bundle", BUNDLES)
def test_an_inference_that_leaves_out_images_ends_with_an_error(bundle: str) -> None:
    """After all results are written."""
    config = json.loads((SOURCE / bundle / "configs" / "inference.json").read_text())
    assert config[config["run"][1:]] == ["$@evaluator.run()", "$@dataloader.require_all_read()"]


@pytest.mark.parametrize("bundle", PICTURES)
def test_radiographs_of_one_slice(bundle: str, tmp_path: Path) -> None:
    """A DICOM radiograph, or a NIfTI image with one slice, is a volume to its reader and a picture to the network."""
    pixels = np.random.default_rng(0).integers(0, 255, (90, 120, 1)).astype(np.int16)
    nib.save(nib.Nifti1Image(pixels, np.diag([-0.2, -0.3, 1.0, 1.0])), tmp_path / "a.nii.gz")
    sitk = pytest.importorskip("SimpleITK")
    volume = sitk.GetImageFromArray(pixels.T)
    volume.SetSpacing((0.2, 0.3, 1.0))
    sitk.WriteImage(volume, str(tmp_path / "a.dcm"))
    parser = ConfigParser()
    parser.read_config(SOURCE / bundle / "configs" / "inference.json")
    parser.update({"bundle_root": str(SOURCE / bundle)})
    preprocessing, size = (parser.get_parsed_content(key) for key in ("preprocessing", "spatial_size"))
    Image.fromarray(pixels[..., 0].T.astype(np.uint8)).save(tmp_path / "a.png")
    items = [preprocessing({"image": str(tmp_path / name)}) for name in ("a.nii.gz", "a.dcm", "a.png")]
    nifti, dicom, _ = (item["image"] for item in items)
    assert nifti.shape == dicom.shape == (1, *size)
    torch.testing.assert_close(nifti.as_tensor(), dicom.as_tensor(), atol=1e-3, rtol=0)
    torch.testing.assert_close(nifti.affine, dicom.affine, atol=1e-3, rtol=0)
    for mixed in (items, items[::-1]):  # a folder may hold both, and pictures
        assert list_data_collate(mixed)["image"].shape == (3, 1, *size)


@pytest.mark.parametrize(
    "path", [path for path in CONFIGS if "backbone_weights" in json.loads(path.read_text())], ids=named
)
def test_a_trained_network_needs_no_weights_to_start_from(path: Path) -> None:
    """Pre-trained weights are looked for, and perhaps downloaded, where a training starts and nowhere else."""
    configs = path.parent
    variant = [] if path.stem in WHOLE else [path]
    for files, weights in (
        ([configs / "train.json", *variant], "a.pth"),
        ([configs / "train.json", *variant, configs / "evaluate.json"], None),
        ([configs / "inference.json", *variant], None),
    ):
        parser = ConfigParser()
        parser.read_config(files)
        parser.update({"backbone_weights": "a.pth"})
        assert parser.get_parsed_content("network_def#weights") == weights


def test_a_coarse_network_needs_no_weights_to_start_from() -> None:
    """Its own training has begun with them."""
    root = SOURCE / "ceph_xray_landmarks_farnet"
    parser = ConfigParser()
    parser.read_config([root / "configs" / f"{name}.json" for name in ("inference", "close_look")])
    coarse = [str(root / "configs" / f"{name}.json") for name in ("train", "full")]
    parser.update({"bundle_root": str(root), "coarse_config": coarse, "coarse_network_def#key": "initial_weights"})
    assert parser.get_parsed_content("coarse_network_def") is None


@pytest.mark.parametrize("max_epochs", [100, 300])
def test_the_learning_rate_of_a_population_does_not_end_before_its_training(max_epochs: int) -> None:
    """Of three epochs that are tried in the search, one is kept: 60 % of all epochs count."""
    parser = ConfigParser()
    configs = SOURCE / "ceph_xray_landmarks_adaptive" / "configs"
    parser.read_config([configs / "train.json", configs / "population.json"])
    parser["train"] = {"trainer": {"max_epochs": max_epochs}, "dataloader": [0] * 7}
    assert parser.get_parsed_content("lr_scheduler#total_iters") == 0.6 * max_epochs * 7


# half of a close look, used by close_look.json
TRAINED_ONLY = ("centers",)


def num_maps(parser: ConfigParser) -> int:
    if "center_groups" in parser:
        return len(parser.get_parsed_content("center_groups"))
    if "close_groups" in parser:
        return parser.get_parsed_content("close_groups").num_channels
    return len(parser.get_parsed_content("names"))


VARIANTS = [path for path in CONFIGS if "network_def" in json.loads(path.read_text())]


@pytest.mark.parametrize("path", [path for path in VARIANTS if path.stem not in WHOLE], ids=named)
def test_variants_can_be_built(path: Path) -> None:
    """A file that changes the network or the training makes a network with a heatmap for each landmark.

    For groups that look alike, it is one for each role in a group, or for the center of each group.
    """
    root = path.parents[1]
    parser, inference = ConfigParser(), ConfigParser()
    parser.read_config([root / "configs" / "train.json", path])
    if path.stem not in TRAINED_ONLY:
        inference.read_config([root / "configs" / "inference.json", path])
        assert parser["network_def"] == inference["network_def"]
    parser.update({"bundle_root": str(root), "initial_weights": None})  # or they would be downloaded
    with torch.device("meta"):
        network = parser.get_parsed_content("network_def")
        size = (256, 256) if root.name in PICTURES else (64, 96, 80)
        assert network(torch.empty(1, 1, *size)).shape == (1, num_maps(parser), *size)
    parser.update({"network_def": small(root)["network_def"]})
    parser.update({"lr_scheduler#total_steps": 10} if "total_steps" in parser["lr_scheduler"] else {})
    optimizer, scheduler = (parser.get_parsed_content(key) for key in ("optimizer", "lr_scheduler"))
    optimizer.step()
    scheduler.step()


@pytest.mark.parametrize("configs", [("train",), ("train", "evaluate"), ("inference",)], ids="+".join)
def test_properties(trained: Path, tmp_path: Path, configs: tuple[str, ...]) -> None:
    """Everything that MONAI says a bundle of its kind must have is there, and can be made."""
    options = training_size(trained) if "train" in configs else {"dataset_dir": str(trained / "data")}
    flow = workflow(trained, *configs, output_dir=str(tmp_path), **options)
    flow.initialize()
    assert not flow.check_properties()
    assert flow.version == metadata(trained.name)["version"]
    assert flow.bundle_root == str(trained)


def test_the_published_scn_clamps_its_jitter() -> None:
    """Spec of the method: scale 1 +- 0.25, shift +- 0.25, and then -1 to 1; in single precision."""
    root = SOURCE / "ceph_xray_landmarks_scn"
    parser = ConfigParser()
    parser.read_config([root / "configs" / f"{name}.json" for name in ("train", "published")])
    parser.update({"bundle_root": str(root)})
    assert parser["precision"] == "float32"
    _, *jitter = parser.get_parsed_content("augmentation")  # the warp comes first
    seen = []
    for _ in range(50):
        item: Any = {"image": torch.tensor([[-1.0, 0.0, 1.0]])}
        for transform in jitter:
            item = transform(item)
        seen.append(item["image"][0])
    low, middle, high = torch.stack(seen).T
    assert low.min() == -1 and high.max() == 1 and low.max() > -1 and high.min() < 1
    assert middle.abs().max() <= 0.25 and middle.std() > 0.05
