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
"""A chain that would leave the landmarks behind is refused, however MONAI runs it."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blobs import causes
from monai import transforms as mt
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor, PersistentDataset
from warm_python import START_METHOD

from monai_landmarks.transforms import (
    LandmarksToHeatmapd,
    LandmarksToIndexd,
    LandmarksToWorldd,
    LoadLandmarksd,
    RandLandmarkWarpd,
    RequireFinited,
    ResampleToSpacingd,
    require_followable_transforms,
)

ELASTIC = {"spacing": (20, 20), "magnitude_range": (1, 2), "prob": 1.0}
UNFOLLOWED: list[Callable[[Any], Any]] = [
    lambda key: mt.Rand2DElasticd(key, **ELASTIC),
    lambda key: mt.Rand3DElasticd(key, (3, 5), (1, 2)),
    lambda key: mt.RandGridDistortiond(key),
    lambda key: mt.GridDistortiond(key, num_cells=2, distort_steps=[(1.0,) * 3] * 2),
    lambda key: mt.RandSimulateLowResolutiond(key),
    lambda key: mt.RandSmoothDeformd(key, spatial_size=(32, 32), rand_size=(4, 4)),
    lambda key: mt.Transposed(key, (0, 2, 1)),
    lambda key: mt.GridSplitd(key),
    lambda key: mt.RandGridPatchd(key, patch_size=(8, 8)),
]
NESTS: list[Callable[[Any], Any]] = [
    lambda t: mt.Compose([t]),
    lambda t: mt.Compose([mt.Identityd("image"), mt.Compose([mt.Compose([t])])]),
    lambda t: mt.Compose([mt.OneOf([mt.Identityd("image"), t])]),
    lambda t: mt.Compose([mt.SomeOf([mt.Identityd("image"), t])]),
    lambda t: mt.Compose([mt.RandomOrder([mt.Identityd("image"), t])]),
    lambda t: [mt.Identityd("image"), t],
]


def source(with_image: bool = True) -> dict[str, Any]:
    return {
        "image": MetaTensor(torch.rand(1, 32, 32)),
        "label": [[3.0, 4.0], [5.0, 6.0]],
        "mask": torch.rand(1, 32, 32),
    }


@pytest.mark.parametrize("nest", NESTS)
@pytest.mark.parametrize("make", UNFOLLOWED)
def test_refused_by_name_with_an_alternative(make: Callable, nest: Callable) -> None:
    transform = make(("mask", "image"))
    with pytest.raises(ValueError, match=f"{type(transform).__name__} moves the content of 'image'.*Use "):
        require_followable_transforms(nest(transform))
    require_followable_transforms(nest(make("mask")))  # images without landmarks may be moved as one likes
    with pytest.raises(ValueError, match="Use"):
        require_followable_transforms(nest(make("mask")), image_keys="mask")


@pytest.mark.parametrize("transform", [mt.Rand2DElastic(**ELASTIC), mt.RandGridDistortion(), mt.Transpose((0, 2, 1))])
def test_array_transforms_are_refused(transform: mt.Transform) -> None:
    with pytest.raises(ValueError, match=type(transform).__name__):
        require_followable_transforms(mt.Compose([transform]))


def test_reason_these_leave_no_trace() -> None:
    # what makes the guard necessary: content moved, and neither affine nor record say so
    image = MetaTensor(torch.rand(1, 32, 32))
    moved = mt.Rand2DElastic(**ELASTIC)(image)
    assert not torch.allclose(moved.as_tensor(), image.as_tensor())
    assert torch.equal(moved.affine, image.affine) and not moved.applied_operations


def test_affine_type_chain_passes() -> None:
    chain = [
        mt.RandAffined("image", prob=1.0),
        mt.RandFlipd("image"),
        RandLandmarkWarpd("image", "label"),
        mt.RandGaussianSmoothd("image"),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        require_followable_transforms(mt.Compose(chain))


@pytest.mark.parametrize("make", [lambda **k: mt.Resized("image", (8, 8), **k), lambda **k: mt.Zoomd("image", 1.2, **k),
                                  lambda **k: mt.RandZoomd("image", **k)])  # fmt: skip
def test_area_interpolation_is_warned_of(make: Callable) -> None:
    with pytest.warns(UserWarning, match='mode "area"'):
        require_followable_transforms(mt.Compose([make()]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        require_followable_transforms(mt.Compose([make(mode="bilinear")]))


def chain(*more: Any, lazy: bool = False) -> mt.Compose:
    return mt.Compose(
        [LoadLandmarksd("label"), mt.RandFlipd("image", 1.0, 0), *more, LandmarksToIndexd("label")], lazy=lazy
    )


def loop(dataset: Dataset) -> None:
    for _ in DataLoader(dataset, batch_size=2):
        pass


RUNS: dict[str, Callable[[mt.Compose, Path], Any]] = {
    "plain": lambda c, folder: c(source()),
    "Dataset": lambda c, folder: loop(Dataset([source()] * 2, c)),
    "CacheDataset": lambda c, folder: loop(CacheDataset([source()] * 2, c, num_workers=2, progress=False)),
    "PersistentDataset": lambda c, folder: loop(
        PersistentDataset([source()] * 2, c, cache_dir=folder, track_meta=True, weights_only=False)
    ),
    "pickled": lambda c, folder: pickle.loads(pickle.dumps(c))(source()),
    "nested": lambda c, folder: mt.Compose([c, mt.Identityd("image")])(source()),
}


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_running_chain_is_refused(run: Callable, lazy: bool, tmp_path: Path) -> None:
    with pytest.raises(Exception) as info:  # MONAI wraps errors of a chain in RuntimeErrors
        run(chain(mt.OneOf([mt.Rand2DElasticd("image", **ELASTIC)]), lazy=lazy), tmp_path)
    assert "Rand2DElasticd moves the content of 'image'" in causes(info.value)
    run(chain(mt.Rand2DElasticd("mask", **ELASTIC), lazy=lazy), tmp_path)
    run(chain(RandLandmarkWarpd("image", "label", elastic_range=2, prob=1.0), lazy=lazy), tmp_path)


def test_running_chain_is_refused_in_a_worker() -> None:
    # not forked from this process: a worker of a process in which ITK has run may never end
    dataset = Dataset([source()], chain(mt.Rand2DElasticd("image", **ELASTIC)))
    with pytest.raises(RuntimeError, match="Rand2DElasticd moves the content of 'image'"):
        next(iter(DataLoader(dataset, num_workers=1, multiprocessing_context=START_METHOD)))


def test_elastic_around_a_chain_that_loads() -> None:
    with pytest.raises(RuntimeError) as info:
        mt.Compose([mt.Compose([LoadLandmarksd("label")]), mt.Compose([mt.Rand2DElasticd("image", **ELASTIC)])])(
            source()
        )
    assert "Rand2DElasticd" in causes(info.value)


def test_elastic_in_a_chain_that_only_converts() -> None:
    # loaded and cached elsewhere: the conversion to index is the last chance
    loaded = LoadLandmarksd("label")(source())
    with pytest.raises(RuntimeError) as info:
        mt.Compose([mt.Rand2DElasticd("image", **ELASTIC), LandmarksToIndexd("label")])(loaded)
    assert "Rand2DElasticd" in causes(info.value)


def test_elastic_around_a_nested_chain_in_a_cache() -> None:
    """Caching runs copies of nested chains in threads, which the outer chain does not hold."""
    nested = mt.Compose([mt.Compose([LoadLandmarksd("label")]), mt.Rand2DElasticd("image", **ELASTIC)])
    with pytest.raises(RuntimeError) as info:
        loop(CacheDataset([source()] * 2, nested, num_workers=2, progress=False))
    assert "Rand2DElasticd" in causes(info.value)


def test_elastic_around_a_chain_inside_a_function() -> None:
    outer = [mt.Lambda(lambda item: inner(item)), mt.Rand2DElasticd("mask", **ELASTIC)]
    inner = chain()
    np.testing.assert_allclose(mt.Compose(outer)(source())["label"][0, 0], [28.0, 4.0])
    inner = chain()
    with pytest.raises(RuntimeError) as info:
        mt.Compose([*outer, mt.Rand2DElasticd("image", **ELASTIC)])(source())
    assert "Rand2DElasticd" in causes(info.value)


def test_alone_it_runs() -> None:
    assert LoadLandmarksd("label")(source())["label"].shape == (1, 2, 2)


def test_every_chain_of_a_transform_is_checked() -> None:
    """Chains for training and validation may share the transforms that load."""
    load = LoadLandmarksd("label")
    mt.Compose([load])(source())
    refused = mt.Compose([load, mt.Rand2DElasticd("image", **ELASTIC)])
    for _ in range(2):
        with pytest.raises(RuntimeError) as info:
            refused(source())
        assert "Rand2DElasticd" in causes(info.value)


LATER: dict[str, tuple[Callable[[], list[Any]], str]] = {
    "flip": (lambda: [LandmarksToIndexd("label"), mt.RandFlipd("image", prob=1.0)], "RandFlipd"),
    "nested": (
        lambda: [mt.Compose([LandmarksToIndexd("label")]), mt.OneOf([mt.Resized("image", (16, 16), mode="bilinear")])],
        "Resized",
    ),
    "crop": (lambda: [LandmarksToIndexd("label"), mt.SpatialCropd("image", (9, 9), (8, 8))], "SpatialCropd"),
    "ours": (lambda: [LandmarksToIndexd("label"), ResampleToSpacingd("image", 2.0)], "ResampleToSpacingd"),
    "ours at the end": (
        lambda: [LandmarksToIndexd("label"), mt.RandFlipd("image", prob=1.0), RequireFinited("image")],
        "RandFlipd",
    ),
    "a class of its own": (
        lambda: [type("Own", (LandmarksToIndexd,), {})("label"), mt.RandFlipd("image", prob=1.0)],
        "RandFlipd",
    ),
    "world again": (
        lambda: [LandmarksToIndexd("label"), LandmarksToWorldd("label"), mt.RandFlipd("image", prob=1.0)],
        "",
    ),
    "before": (lambda: [mt.RandFlipd("image", prob=1.0), LandmarksToIndexd("label")], ""),
    "other image": (lambda: [LandmarksToIndexd("label"), mt.RandFlipd("mask", prob=1.0)], ""),
    "other kind": (lambda: [LandmarksToIndexd("label"), mt.RandGaussianSmoothd("image", prob=1.0)], ""),
    "twice": (lambda: [LandmarksToIndexd("label"), mt.RandFlipd("image", prob=1.0), LandmarksToIndexd("label")], ""),
    "heatmaps": (
        lambda: [LandmarksToIndexd("label"), LandmarksToHeatmapd("label", sigma=2), mt.Flipd(["image", "label"], 0)],
        "",
    ),
}


@pytest.mark.parametrize("name", LATER)
def test_moves_after_the_points_are_index_points(name: str) -> None:
    make, moved = LATER[name]
    item = LoadLandmarksd("label")(source())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = mt.Compose(make())(item)
    said = [str(warning.message) for warning in caught if "do not follow" in str(warning.message)]
    assert len(said) == bool(moved) and all(text.startswith(moved) for text in said)
    if name == "twice":  # both axes are flipped
        np.testing.assert_allclose(result["label"][0, 0], [28.0, 27.0])
