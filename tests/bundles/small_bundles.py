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

"""The bundles at the size of a test: a copy to run in, small images, a small network, data that is made on the spot."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.bundle import ConfigWorkflow
from PIL import Image

from monai_landmarks.data import AASCE_LANDMARKS, ISBI2015_LANDMARKS

SOURCE = Path(__file__).parents[2] / "bundles"
BUNDLES = sorted(path.parents[1].name for path in SOURCE.glob("*/configs/train.json"))
VOLUMES = [bundle for bundle in BUNDLES if bundle.split("_")[1] in ("ct", "mri")]
PICTURES = [bundle for bundle in BUNDLES if bundle not in VOLUMES]
# whose trained copies have pictures that are painted, one of each kind; the others have the same handlers
PAINTED = (PICTURES[0], VOLUMES[0])
# parts of a spine: which vertebrae a volume shows is not known
SPINES = [bundle for bundle in VOLUMES if bundle.startswith("vertebrae")]

# SCN's own loss in the bundle for hands: its sigmas are learned, and the maximum of its maps does not depend on rounding
SCN_LOSS: dict[str, Any] = {
    "loss_def": {"_target_": "monai_landmarks.losses.SCNLoss", "num_landmarks": "$len(@names)", "spatial_dims": 2},
    "softmax": False,
}

# by the last word of the bundle's name; given whole, so that the tests do not depend on the size that a bundle trains
NETWORKS = {
    "scn": {
        "_target_": "monai_landmarks.networks.nets.SCN",
        "spatial_dims": 2,
        "in_channels": 1,
        "num_landmarks": "$len(@names)",
        "local_appearance": "unet",
        "unet_features": [8, 8, 8, 8, 8, 8],
        "features": 8,
        "spatial_kernel": 5,
        "norm": "instance",
        "spatial_bias": 1.0,
        "head_init_std": 0.01,
    },
    "farnet": {
        "_target_": "monai_landmarks.networks.nets.FARNet",
        "spatial_dims": 2,
        "in_channels": 1,
        "num_landmarks": "$len(@names)",
        "backbone": ["densenet", {"init_features": 8, "growth_rate": 8, "block_config": [1, 1, 1, 1]}],
        "features": 16,
        "norm": "instance",
        "backbone_norm": "instance",
        "input_statistics": None,
        "head_init_std": 0.01,
    },
    "adaptive": {
        "_target_": "monai_landmarks.networks.nets.LocalizationUNet",
        "spatial_dims": 2,
        "in_channels": 1,
        "num_landmarks": "$len(@names)",
        "features": [8, 8, 8, 8, 8, 8],
    },
}
SIZE = [64, 64]
PATCH = [32, 32, 32]
# a processor convolves small volumes several times as fast if there are two of them (torch chooses another method)
IN_PAIRS = {"patches_per_image": 2, "windows#sw_batch_size": 2}


def network_def(bundle: str) -> dict[str, Any]:
    """The network of a test of this bundle, as a configuration."""
    network = NETWORKS[bundle.rsplit("_", 1)[1]]
    return (
        network if bundle in PICTURES else {**network, "spatial_dims": 3, "spatial_factor": 4, "padding_mode": "zeros"}
    )


def metadata(bundle: str) -> dict[str, Any]:
    return json.loads((SOURCE / bundle / "configs" / "metadata.json").read_text())


def copy_bundle(bundle: str, folder: Path) -> Path:
    """A copy without what earlier runs have left; its data is made or written on the spot."""
    root = folder / bundle
    shutil.copytree(SOURCE / bundle, root, ignore=shutil.ignore_patterns("models", "eval", "data"))
    data = bundle.split("_", 1)[0]
    if data in WRITERS:
        WRITERS[data](root / "data")
    return root


def small(root: Path, **more: Any) -> dict[str, Any]:
    """Overrides of a configuration, for `workflow` or, as JSON, for the command line."""
    overrides = {"bundle_root": str(root), "network_def": network_def(root.name)}
    overrides |= {"spatial_size": SIZE, "batch_size": 2} if root.name in PICTURES else {"patch_size": PATCH, **IN_PAIRS}
    # where the copy has its data; a phantom is made there, too
    return {**overrides, "dataset_dir": str(root / "data"), **more}


def option(key: str, value: Any) -> tuple[str, str]:
    """An override as it is written on the command line."""
    return f"--{key}", value if isinstance(value, str) else repr(value)


def workflow(
    root: Path, *configs: str, workflow_type: str | None = None, tracking: str | None = None, **overrides: Any
):
    """The workflow of some configuration files, such as ``"train", "evaluate"``."""
    return ConfigWorkflow(
        [str(root / "configs" / f"{config}.json") for config in configs],
        logging_file=False,  # the root logger is the tests'
        workflow_type=workflow_type or ("infer" if configs[0] == "inference" else "train"),
        tracking=tracking,
        **small(root, **overrides),
    )


def run(root: Path, *configs: str, **overrides: Any) -> ConfigWorkflow:
    """Run a workflow as ``python -m monai.bundle run`` does."""
    flow = workflow(root, *configs, **overrides)
    flow.initialize()
    flow.run()
    flow.finalize()
    return flow


def trained_epochs(bundle: str) -> int:
    """How long the copies are trained that all tests share, validated in the middle and at the end."""
    return 12 if bundle in PICTURES else 6


def training_size(root: Path, images: int = 10, epochs: int = 2, val_interval: int = 1) -> dict[str, Any]:
    """Overrides for a training of some seconds; a phantom of 10 images has 6 for training, 2 and 2 for the rest."""
    more: dict[str, Any] = {"datalist#num_images": images} if root.name.startswith("hand") else {}
    if root.name in SPINES:  # the published optimizer needs thousands of steps
        params = {"_target_": "monai_landmarks.losses.parameter_groups", "network": "@network", "loss": "@loss"}
        more["optimizer"] = {"_target_": "torch.optim.AdamW", "params": params, "lr": 0.01}
        more["lr_scheduler"] = {"_target_": "torch.optim.lr_scheduler.ConstantLR", "optimizer": "@optimizer"}
    return {"max_epochs": epochs, "val_interval": val_interval, **more}


def one_per_network(bundles: Iterable[str]) -> list[str]:
    """Return the first bundle of each network and number of dimensions."""
    first: dict[tuple[str, bool], str] = {}
    for bundle in bundles:
        first.setdefault((bundle.rsplit("_", 1)[1], bundle in PICTURES), bundle)
    return list(first.values())


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_ceph_data(folder: Path, size: tuple[int, int] = (77, 96)) -> None:
    """A folder as `isbi2015_datalist` reads it."""
    random = np.random.default_rng(0)
    template = random.uniform(0.15, 0.85, (19, 2)) * size
    splits = ["train"] * 8 + ["test1"] * 2 + ["test2"]
    names = [f"{number:03d}.png" for number, _ in enumerate(splits, 1)]
    tables = {"": 0.0, "_senior": -0.25, "_junior": 0.25, "_challenge": -0.25}
    points = _write_spots(folder, names, template, size, random)
    for name, shift in tables.items():
        _write_points(folder / f"landmarks{name}.csv", names, ISBI2015_LANDMARKS, points + shift)
    _write_table(folder / "splits.csv", ["image", "split"], zip(names, splits))


def write_aasce_data(folder: Path, size: tuple[int, int] = (50, 120)) -> None:
    """A folder as `aasce_datalist` reads it: 17 vertebrae of four corners, one below the other."""
    corners = np.array([[-6.0, -2.0], [6.0, -2.0], [-6.0, 2.0], [6.0, 2.0]])
    centers = np.stack([np.full(17, 25.0), np.linspace(10, 110, 17)], axis=1)
    splits = ["train"] * 8 + ["test"] * 2
    names = [f"{number:03d}.jpg" for number, _ in enumerate(splits)]
    template = (centers[:, None] + corners).reshape(-1, 2)
    points = _write_spots(folder, names, template, size, np.random.default_rng(0), jitter=0.2)
    _write_points(folder / "landmarks.csv", names, AASCE_LANDMARKS, points)
    header = ["image", "split", "original_file", "cobb1", "cobb2", "cobb3"]
    rows = [
        [name, split, f"made-1th-02-Jan-2017-{300 + patient} A AP.jpg", 20.0, 10.0, 5.0]
        for patient, (name, split) in enumerate(zip(names, splits))
    ]
    _write_table(folder / "splits.csv", header, rows)


def write_volume_data(folder: Path, names: Sequence[str], spacing: float) -> None:
    """A folder as `table_folder_datalist` reads it: volumes with a bright spot at each landmark, in any orientation."""
    random = np.random.default_rng(0)
    size = np.array([28, 40, 30])
    template = random.uniform(0.2, 0.8, (len(names), 3)) * size
    splits = ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    images, rows = [f"{number:03d}.nii.gz" for number, _ in enumerate(splits)], []
    grid = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1)
    (folder / "images").mkdir(parents=True)
    for number, image in enumerate(images):
        points = template + random.normal(0, 1, 3) + random.normal(0, 0.5, template.shape)
        volume = np.zeros(size)
        for point in points:
            volume = np.maximum(volume, 250 * np.exp(-((grid - point) ** 2).sum(-1) / 8))
        affine = np.diag([spacing, spacing, spacing, 1.0])
        affine[:3, 3] = random.uniform(-20, 20, 3)
        world = points @ affine[:3, :3] + affine[:3, 3]
        turned = nib.Nifti1Image(volume.astype(np.uint8), affine)
        codes = [["R", "L"][number % 2], ["A", "P"][number % 3 % 2], "S"]
        codes = codes[::-1] if number % 4 == 1 else codes
        target = nib.orientations.axcodes2ornt(codes)
        nib.save(
            turned.as_reoriented(nib.orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], target)),
            folder / "images" / image,
        )
        rows += [[image, name, *xyz] for name, xyz in zip(names, world)]
    _write_table(folder / "landmarks.csv", ["image", "landmark", "x", "y", "z"], rows)
    _write_table(folder / "splits.csv", ["image", "split"], zip(images, splits))
    half = len(names) // 2
    _write_table(folder / "mirror_pairs.csv", ["landmark", "mirror_landmark"], zip(names[:half], names[half:]))


def _names(bundle: str) -> list[str]:
    return list(metadata(bundle)["network_data_format"]["outputs"]["pred"]["channel_def"].values())


def write_verse_data(folder: Path, shape: tuple[int, int, int] = (32, 32, 64)) -> None:
    """Folders as `verse_datalist` reads them: six vertebrae in a row, each as bright as its number, at 2 mm."""
    random = np.random.default_rng(0)
    sections = ["training"] * 2 + ["validation"] * 2 + ["test"]
    for number, section in enumerate(sections):
        subject = f"sub-verse{number:03d}"
        labels = 17 + number % 3 + np.arange(6)  # from T10, T11 or T12
        points = np.array(shape) / 2 + random.normal(0, 1, (6, 3))
        points[:, 2] = shape[2] - 5 - 11 * np.arange(6) + random.normal(0, 0.5, 6)
        grid = np.moveaxis(np.indices(shape), 0, -1)
        spots = [80 * label * np.exp(-((grid - p) ** 2).sum(-1) / 18) for label, p in zip(labels, points)]
        base = folder / f"dataset-verse19{section}"
        raw, derived = base / "rawdata" / subject, base / "derivatives" / subject
        raw.mkdir(parents=True)
        derived.mkdir(parents=True)
        # stored from left to right, with directions counted the other way, as the files of VerSe may
        volume = np.max(spots, axis=0).astype(np.int16) - 100
        nib.save(nib.Nifti1Image(volume, np.diag([2.0, 2.0, 2.0, 1.0])), raw / f"{subject}_ct.nii.gz")
        entries: list[dict[str, Any]] = [{"direction": ["L", "A", "S"]}]
        for label, (x, y, z) in zip(labels.tolist(), points.tolist()):
            entries.append({"label": label, "X": shape[0] - 1 - x, "Y": y, "Z": z})
        (derived / f"{subject}_seg-vert_ctd.json").write_text(json.dumps(entries))


WRITERS: dict[str, Callable[[Path], None]] = {
    "ceph": write_ceph_data,
    "spine": write_aasce_data,
    "vertebrae": write_verse_data,
    "lumbar": lambda folder: write_volume_data(folder, _names("lumbar_mri_landmarks_scn"), 2.0),
    "mouse": lambda folder: write_volume_data(folder, _names("mouse_ct_landmarks_scn"), 0.4),
}


def _write_spots(
    folder: Path,
    names: list[str],
    template: np.ndarray,
    size: tuple[int, int],
    random: np.random.Generator,
    jitter: float = 1.0,
) -> np.ndarray:
    """Images with a bright spot at each landmark, and their points, (images, N, 2)."""
    x, y = np.mgrid[: size[0], : size[1]]
    brightness = random.uniform(0.3, 1.0, len(template))
    (folder / "images").mkdir(parents=True)
    found = []
    for name in names:
        points = template + random.normal(0, 2, 2) + random.normal(0, jitter, template.shape)
        spots = [b * np.exp(-((x - px) ** 2 + (y - py) ** 2) / 8) for b, (px, py) in zip(brightness, points)]
        Image.fromarray((np.max(spots, axis=0).T * 255).astype(np.uint8)).save(folder / "images" / name)
        found.append(points)
    return np.array(found)


def _write_points(path: Path, images: list[str], names: Sequence[str], points: np.ndarray) -> None:
    rows = [[image, name, *xy] for image, one in zip(images, points) for name, xy in zip(names, one)]
    _write_table(path, ["image", "landmark", "x", "y"], rows)


def _write_table(path: Path, header: list[str], rows: Iterable[Iterable[Any]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
