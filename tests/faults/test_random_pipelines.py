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
"""Random pipelines of the package's and MONAI's transforms: landmarks are right, or the user is told.

Each landmark is the center of a bright Gaussian in an image channel of its own. After a random pipeline, which may
include caches on disk, lazy mode, batches and inverses, each landmark must be at the center of its Gaussian, within 0.1
voxel; or the pipeline must have raised an error or a warning. The truth is measured in the image and uses no affine.

``MONAI_LANDMARKS_FAULTS=long`` runs 5000 pipelines instead of 300::

    MONAI_LANDMARKS_FAULTS=long pytest tests/faults/test_random_pipelines.py -s
"""

from __future__ import annotations

import collections
import os
import pickle
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blobs import blob_image, oblique
from monai import transforms as mt
from monai.data import (
    CacheDataset,
    CacheNTransDataset,
    DataLoader,
    Dataset,
    MetaTensor,
    PersistentDataset,
    decollate_batch,
)
from monai.utils import convert_to_tensor

from monai_landmarks.spaces import points_to_world
from monai_landmarks.transforms import (
    CropToForegroundd,
    FitToGridd,
    LandmarksToHeatmapd,
    LandmarksToIndexd,
    LandmarksToWorldd,
    LoadLandmarksd,
    RandCropByLandmarksd,
    RandLandmarkFlipd,
    RandLandmarkWarpd,
    ResampleToSpacingd,
)

LONG = os.environ.get("MONAI_LANDMARKS_FAULTS") == "long"
PIPELINES = 5000 if LONG else 300
GROUPS = 10
TOLERANCE = 0.1  # voxel
SIGMA = 1.6  # of the Gaussians, in voxels; transforms that sharpen or blur leave the center where it is
NUM = 3
# what a user would take for a word about the landmarks; other warnings do not count
TOLD = re.compile(r"landmark|affine|content", re.IGNORECASE)

Random = np.random.RandomState


class Scene:
    """An image with a Gaussian per landmark, its affine, and rows of the landmarks in one of the accepted forms."""

    def __init__(self, random: Random, dims: int) -> None:
        self.dims = dims
        self.shape = tuple(int(n) for n in random.randint(*((30, 40) if dims == 2 else (22, 27)), dims))
        index = random.uniform(0.38, 0.62, (NUM, dims)) * self.shape
        spacing = random.uniform(0.6, 1.6, dims)
        affine = np.array(mt.utils.to_affine_nd(3, oblique(spacing)), copy=True)
        if random.rand() < 0.3:
            affine = np.diag([*(spacing * [(-1, -1, 1)[i] for i in range(dims)]), *[1.0] * (4 - dims)])
        affine[:dims, 3] = random.uniform(-60, 60, dims)
        self.affine = affine
        image = blob_image(index, self.shape, SIGMA).float()
        self.item: dict[str, Any] = {"image": MetaTensor(image, affine=torch.from_numpy(affine))}
        if random.rand() < 0.5:
            self.item["image"].meta["filename_or_obj"] = "scan.nii.gz"
        system = ("index", "RAS")[random.randint(2)]
        rows = index if system == "index" else points_to_world(index, affine)
        self.item |= {"label": rows.tolist(), "label_coordinate_system": system}


def centers(image: Any) -> tuple[np.ndarray, np.ndarray]:
    """Centers of the Gaussians of an image in index coordinates, (N, D), and whether they can be measured, (N,).

    The center of mass of the part above a tenth of the maximum. It is not measured where this part reaches the border
    of the image, is not in one piece, as after padding that repeats the image, or was cut: the part above half of the
    maximum then has another center.
    """
    values = torch.as_tensor(image.as_tensor() if hasattr(image, "as_tensor") else image).double().numpy()
    points = np.full((len(values), values.ndim - 1), np.nan)
    sure = np.zeros(len(values), dtype=bool)
    for number, channel in enumerate(values):
        channel = channel - np.median(channel)
        if not channel.max() > 0:
            continue
        channel /= channel.max()
        peak = np.unravel_index(channel.argmax(), channel.shape)
        box = tuple(slice(max(p - 7, 0), p + 8) for p in peak)
        part = channel[box]
        rest = channel.copy()
        rest[box] = 0
        border = np.ones(part.shape, dtype=bool)
        border[tuple(slice(1, -1) for _ in part.shape)] = False
        points[number], upper = (_center_of_mass(np.clip(part - level, 0, None), box) for level in (0.1, 0.5))
        sure[number] = rest.max() < 0.1 and part[border].max() < 0.1 and abs(points[number] - upper).max() < 0.05
    return points, sure


def _center_of_mass(part: np.ndarray, box: tuple[slice, ...]) -> np.ndarray:
    grid = np.meshgrid(*[np.arange(s.start, s.start + n) for s, n in zip(box, part.shape)], indexing="ij")
    return np.array([(axis * part).sum() / part.sum() for axis in grid])


def pick(random: Random, *choices: Any) -> Any:
    return choices[random.randint(len(choices))]


def stock(random: Random, scene: Scene) -> Any:
    """A random spatial transform of MONAI with random options, also those that shift the content."""
    dims, size = scene.dims, [int(n * random.uniform(0.85, 1.25)) for n in scene.shape]
    smooth = "bilinear" if dims == 2 else "trilinear"
    resize_mode = pick(random, smooth, smooth, smooth, "area", "nearest")
    corners = None if resize_mode in ("area", "nearest") else pick(random, None, False, True)
    grid_mode = (
        pick(random, "bilinear", "bilinear", "bilinear", "nearest", 3)
        if dims == 2
        else pick(random, "bilinear", "bilinear", 3)
    )
    padding = pick(random, "zeros", "border", "reflection")
    turn: Any = random.uniform(-0.4, 0.4) if dims == 2 else random.uniform(-0.3, 0.3, 3).tolist()
    corner = bool(random.randint(2))
    ranges = {"rotate_range": (0.3,) * (2 * dims - 3), "translate_range": (2,) * dims, "scale_range": (0.15,) * dims}
    pad_mode = pick(random, "constant", "edge", "reflect", "wrap")
    labels = (("L", "R"), ("P", "A"), ("I", "S"))
    makers: list[Callable[[], Any]] = [
        lambda: mt.Flipd("image", int(random.randint(dims))),
        lambda: mt.RandFlipd("image", 0.7, int(random.randint(dims))),
        lambda: mt.RandAxisFlipd("image", 0.7),
        lambda: mt.Rotate90d("image", int(random.randint(1, 4))),
        lambda: mt.RandRotate90d("image", 0.7),
        lambda: mt.Orientationd(
            "image",
            pick(random, "RAS", "LPS", "PLI", "AIL")[:3] if dims == 3 else pick(random, "RA", "LP", "AL"),
            labels=labels,
        ),
        lambda: mt.Resized("image", size, mode=resize_mode, align_corners=corners, anti_aliasing=corner),
        lambda: mt.Zoomd("image", random.uniform(0.85, 1.2), mode=resize_mode, align_corners=corners, keep_size=corner),
        lambda: mt.RandZoomd("image", 0.8, 0.85, 1.2, mode=resize_mode, align_corners=corners, keep_size=corner),
        lambda: mt.Rotated(
            "image",
            turn,
            mode=grid_mode if grid_mode != 3 else "bilinear",
            padding_mode=padding,
            align_corners=corner,
            keep_size=bool(random.randint(2)),
        ),
        lambda: mt.RandRotated(
            "image", 0.3, *((0.3, 0.3) if dims == 3 else ()), prob=0.8, padding_mode=padding, keep_size=corner
        ),
        lambda: mt.Affined(
            "image",
            rotate_params=turn,
            scale_params=random.uniform(0.9, 1.2, dims).tolist(),
            mode=grid_mode,
            padding_mode=padding,
            align_corners=pick(random, False, False, True),
        ),
        lambda: mt.RandAffined("image", prob=0.8, **ranges, mode=grid_mode, padding_mode=padding),
        lambda: mt.RandAffined("image", size, prob=pick(random, 1.0, 1.0, 0.6), **ranges, cache_grid=True),
        lambda: mt.Spacingd(
            "image",
            random.uniform(0.8, 1.4, dims).tolist(),
            mode=grid_mode,
            align_corners=corner,
            scale_extent=bool(random.randint(2)),
        ),
        lambda: mt.SpatialPadd(
            "image", [n + 4 for n in scene.shape], method=pick(random, "symmetric", "end"), mode=pad_mode
        ),
        lambda: mt.BorderPadd("image", int(random.randint(1, 5)), mode=pad_mode),
        lambda: mt.DivisiblePadd("image", 8, mode=pad_mode),
        lambda: mt.ResizeWithPadOrCropd("image", size),
        lambda: mt.CenterSpatialCropd("image", [n - 3 for n in scene.shape]),
        lambda: mt.RandSpatialCropd("image", [int(n * 0.9) for n in scene.shape], random_size=corner),
        lambda: mt.RandScaleCropd("image", 0.9, random_size=corner),
        lambda: mt.SpatialCropd("image", roi_start=[2] * dims, roi_end=[n - 1 for n in scene.shape]),
        lambda: mt.CropForegroundd("image", source_key="image", select_fn=lambda x: x > 0.01, margin=3),
        lambda: mt.RandSpatialCropSamplesd("image", [int(n * 0.9) for n in scene.shape], 2, random_size=False),
        lambda: (
            mt.Rand2DElasticd("image", (10, 10), (1, 3), prob=1.0)
            if dims == 2
            else mt.Rand3DElasticd("image", (3, 4), (30, 60), prob=1.0)
        ),
        lambda: mt.RandGridDistortiond("image", prob=1.0),
        lambda: mt.RandSmoothDeformd("image", spatial_size=scene.shape, rand_size=(5,) * dims, prob=1.0, def_range=0.1),
        lambda: mt.Transposed("image", [0, *range(dims, 0, -1)]),
        lambda: mt.RandSimulateLowResolutiond("image", prob=1.0, upsample_mode=smooth),
    ]
    return pick(random, *makers[:25], *makers[:25], *makers)()


def intensity(random: Random, scene: Scene) -> Any:
    """A random transform that changes values, types or metadata and does not move the content."""
    return pick(
        random,
        lambda: mt.RandGaussianSmoothd("image", prob=1.0, sigma_x=(0.3, 0.6), sigma_y=(0.3, 0.6), sigma_z=(0.3, 0.6)),
        lambda: mt.ScaleIntensityd("image", channel_wise=True),
        lambda: mt.RandScaleIntensityd("image", 0.2, prob=1.0),
        lambda: mt.NormalizeIntensityd("image", channel_wise=True),
        lambda: mt.EnsureTyped(["image", "label"], track_meta=True),
        lambda: mt.EnsureTyped("image", track_meta=bool(random.randint(2))),
        lambda: mt.CastToTyped("image", torch.float32),
        lambda: mt.ToTensord(pick(random, "image", "label"), track_meta=bool(random.randint(2))),
        lambda: mt.ToNumpyd(pick(random, "image", "label")),
        lambda: mt.Lambdad("image", lambda x: x * 2.0),
        lambda: mt.Lambdad(pick(random, "image", "label"), np.asarray),
        lambda: mt.SelectItemsd(["image", "label", "label_coordinate_system", "label_loaded"], allow_missing_keys=True),
        lambda: mt.SelectItemsd(["image", "label", "label_coordinate_system"], allow_missing_keys=True),
        lambda: mt.Identityd("image"),
        lambda: mt.CopyItemsd("image", 1, "copy"),
        lambda: mt.RandIdentity(),
    )()


def own(random: Random, scene: Scene) -> Any:
    """A random transform of the package."""
    dims, unit = scene.dims, pick(random, "voxel", "mm")
    return pick(
        random,
        lambda: RandLandmarkWarpd("image", "label", translate_range=1.5, rotate_range=0.2, scale_range=0.1,
                                  elastic_range=pick(random, None, 1.0), unit=unit, prob=0.8,
                                  padding_mode=pick(random, "zeros", "border")),
        lambda: RandLandmarkFlipd("image", "label", int(random.randint(dims)), prob=0.6),
        lambda: RandCropByLandmarksd("image", "label", [int(n * 0.9) for n in scene.shape], 2, neg=0),
        lambda: ResampleToSpacingd("image", random.uniform(0.9, 1.3)),
        lambda: FitToGridd("image", [int(n * random.uniform(0.9, 1.2)) for n in scene.shape]),
        lambda: CropToForegroundd("image", 0.02, margin=4.0),
        lambda: LandmarksToIndexd("label"),
        lambda: LandmarksToWorldd("label"),
    )()  # fmt: skip


def pipeline(random: Random, scene: Scene) -> list[Any]:
    """Random transforms with one that loads the landmarks, mostly first, and one that ends in index points."""
    length = random.randint(1, 6)
    kinds = random.choice([stock, stock, stock, own, own, intensity], length)
    chain = [kind(random, scene) for kind in kinds]
    chain.insert(0 if random.rand() < 0.85 else random.randint(len(chain) + 1), LoadLandmarksd("label"))
    return [*chain, LandmarksToIndexd("label")]


def stored(item: Any) -> Any:
    """An item as a cache of the user's own would hold it: plain tensors in a file."""
    return convert_to_tensor(item, convert_numeric=False)


def run(random: Random, scene: Scene, folder: Path) -> list[dict[str, Any]]:
    """Run a random pipeline in a random way, for two epochs, and return all resulting items."""
    transforms = pipeline(random, scene)
    lazy = bool(random.rand() < 0.3)
    chain = mt.Compose(transforms, lazy=lazy).set_random_state(int(random.randint(2**31)))
    data = [scene.item]
    way = random.randint(8)
    if way == 0:
        dataset: Dataset = PersistentDataset(data, chain, cache_dir=folder, hash_transform=None)
    elif way == 1:
        dataset = PersistentDataset(data, chain, cache_dir=folder, track_meta=True, weights_only=False)
    elif way == 2:
        dataset = CacheNTransDataset(data, chain, int(random.randint(1, len(transforms) + 1)), cache_dir=folder)
        if random.rand() < 0.5:
            dataset.track_meta, dataset.weights_only = True, False
    elif way == 3:
        dataset = CacheDataset(data, chain, progress=False, num_workers=None)
    elif way == 4:  # a cut in the middle, with plain or with pickled tensors
        # after the landmarks are loaded: nothing shows that an image was deformed before
        cut = int(random.randint(1 + [type(t) for t in transforms].index(LoadLandmarksd), len(transforms)))
        first = mt.Compose(transforms[:cut], lazy=lazy)(scene.item)
        first = first if isinstance(first, list) else [first]
        # without "label_loaded", plain points are index points, as documented
        whole = all("label_loaded" in item for item in first)
        items = stored(first) if whole and random.rand() < 0.5 else pickle.loads(pickle.dumps(first))
        dataset = Dataset(items, mt.Compose(transforms[cut:], lazy=lazy))
    else:
        dataset = Dataset(data, chain)
    results: list[Any] = []
    for _ in range(2):
        for number in range(len(dataset)):
            result = dataset[number]
            results += result if isinstance(result, list) else [result]
    if random.rand() < 0.3:
        collate = pick(random, None, mt.PadListDataCollate())
        options = {} if collate is None else {"collate_fn": collate}
        results = [item for batch in DataLoader(results, batch_size=1 if collate is None else 2, **options)
                   for item in decollate_batch(batch)]  # fmt: skip
        results = [LandmarksToIndexd("label")(item) for item in results]
    if random.rand() < 0.2:  # of the landmarks only: the way to the world and back
        results = [LandmarksToIndexd("label")(LandmarksToWorldd("label")(item)) for item in results]
    return results


def error_of(item: dict[str, Any], heatmaps: Any) -> float:
    """Largest distance of a landmark from the center of its Gaussian along an axis, in voxels.

    It is infinite for a landmark that became missing, and NaN if no Gaussian can be measured.
    """
    truth, sure = centers(item["image"])
    points = np.asarray(torch.as_tensor(item["label"]).double())[0]
    drawn, drawn_sure = centers(heatmaps)
    errors = np.concatenate([np.abs(points - truth)[sure], np.abs(drawn - truth)[sure & drawn_sure]])
    return float(np.nan_to_num(errors, nan=np.inf).max()) if errors.size else np.nan


def outcome(seed: int, folder: Path) -> tuple[str, float]:
    """Run a pipeline. Return ``"right"``, ``"not measured"``, ``"warned"``, ``"refused"`` or ``"wrong"``, and the error."""
    random = Random(seed)
    scene = Scene(random, 2 if random.rand() < 0.6 else 3)
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        try:
            results = run(random, scene, folder)
            heatmaps = [LandmarksToHeatmapd("label", sigma=SIGMA)(item)["label_heatmap"] for item in results]
        except Exception:  # of MONAI or of this package
            return "refused", 0.0
    assert results
    errors = np.array([error_of(*pair) for pair in zip(results, heatmaps)])
    if np.isnan(errors).all():
        return "not measured", np.nan
    error = float(np.nanmax(errors))
    if error <= TOLERANCE:
        return "right", error
    return ("warned" if any(TOLD.search(str(w.message)) for w in record) else "wrong"), error


@pytest.mark.parametrize("group", range(GROUPS))
def test_no_silent_error(group: int, tmp_path: Path) -> None:
    counts: collections.Counter[str] = collections.Counter()
    wrong = []
    for seed in range(group, PIPELINES, GROUPS):
        folder = tmp_path / str(seed)
        folder.mkdir()
        kind, error = outcome(seed, folder)
        counts[kind] += 1
        if kind == "wrong":
            wrong.append((seed, round(error, 2)))
    print(dict(counts))
    assert wrong == []
    assert counts["right"] > 0.3 * sum(counts.values()), "too few pipelines run to their end"
