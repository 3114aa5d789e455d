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
"""An image or landmarks that lost their affine are refused, whatever came between."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blobs import blob_image, causes, centroids, inner_points, oblique
from monai import transforms as mt
from monai.data import (
    CacheNTransDataset,
    DataLoader,
    Dataset,
    LMDBDataset,
    MetaTensor,
    PersistentDataset,
    decollate_batch,
    set_track_meta,
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
    SaveLandmarksd,
)

SHAPE = {2: (36, 30), 3: (24, 20, 22)}


def source(dims: int = 2, seed: int = 0) -> dict[str, Any]:
    """An image with a blob per landmark, spacing and origin, and world points of the landmarks."""
    index = inner_points(SHAPE[dims], 2, seed)
    affine = oblique((0.5, 0.8, 0.6)[:dims])
    affine = mt.utils.to_affine_nd(3, affine)
    return {
        "image": MetaTensor(blob_image(index, SHAPE[dims]), affine=affine),
        "label": points_to_world(index, affine).tolist(),
        "label_coordinate_system": "RAS",
    }


def on_blobs(item: dict[str, Any]) -> None:
    np.testing.assert_allclose(item["label"][0], centroids(item["image"]), atol=0.1)


def random_part(dims: int) -> list[Any]:
    return [mt.RandAffined("image", prob=1.0, rotate_range=0.2, translate_range=2), mt.RandFlipd("image", prob=0.5)]


BEFORE: dict[str, list[Any]] = {
    "world": [],
    "index": [LandmarksToIndexd("label")],
    "warped": [RandLandmarkWarpd("image", "label", rotate_range=0.1, prob=1.0)],
}
BETWEEN: dict[str, list[Any]] = {
    "nothing": [],
    "flip": [mt.RandFlipd("image", prob=1.0)],
    "affine": [mt.RandAffined("image", prob=1.0, rotate_range=0.2)],
    "tracked again": [mt.EnsureTyped(["image", "label"], track_meta=True), mt.Flipd("image", 0)],
    "points by MONAI": [mt.RandFlipd("image", prob=1.0), mt.TransformPointsWorldToImaged("label", "image")],
}
AFTER: dict[str, Callable[[Path], Any]] = {
    "index": lambda folder: LandmarksToIndexd("label"),
    "world": lambda folder: LandmarksToWorldd("label"),
    "warp": lambda folder: RandLandmarkWarpd("image", "label", prob=0.0),
    "flip": lambda folder: RandLandmarkFlipd("image", "label", prob=0.0),
    "crop": lambda folder: RandCropByLandmarksd("image", "label", 8),
    "heatmap": lambda folder: LandmarksToHeatmapd("label"),
    "save": lambda folder: SaveLandmarksd("label", output_dir=folder),
}


@pytest.mark.parametrize("after", AFTER.values(), ids=AFTER)
@pytest.mark.parametrize("between", BETWEEN.values(), ids=BETWEEN)
@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
def test_plain_tensors_of_a_cache_are_refused(before: list, between: list, after: Callable, tmp_path: Path) -> None:
    item = mt.Compose([LoadLandmarksd("label"), *before])(source())
    torch.save(convert_to_tensor(item, convert_numeric=False), tmp_path / "item.pt")
    cached = torch.load(tmp_path / "item.pt", weights_only=True)
    with pytest.raises(Exception) as info:
        mt.Compose([*between, after(tmp_path)])(cached)
    assert "lost the affine" in causes(info.value) and "track_meta=True" in causes(info.value)


CACHES: dict[str, Callable[..., Any]] = {
    "persistent": lambda data, chain, folder: PersistentDataset(data, chain, cache_dir=folder),
    "n transforms": lambda data, chain, folder: CacheNTransDataset(data, chain, 2, cache_dir=folder),
}
CACHES["lmdb"] = lambda data, chain, folder: LMDBDataset(
    data, chain, cache_dir=folder, progress=False, lmdb_kwargs={"map_size": 2**22}
)
NO_LMDB = pytest.mark.skipif(find_spec("lmdb") is None, reason="the package lmdb is not installed")


@pytest.mark.parametrize("load_first", [True, False])
@pytest.mark.parametrize(
    "make", [pytest.param(make, id=name, marks=[NO_LMDB] * (name == "lmdb")) for name, make in CACHES.items()]
)
def test_caches_without_affines_are_refused_at_the_first_item(make: Callable, load_first: bool, tmp_path: Path) -> None:
    load = [LoadLandmarksd("label"), mt.Identityd("image")]
    chain = mt.Compose([*load, *random_part(2)] if load_first else [*load[1:], *random_part(2), *load[:1]])
    with pytest.raises(Exception) as info:  # no transform of landmarks follows that could notice later
        _ = make([source()], chain, tmp_path)[0]
    assert "drops the affines" in causes(info.value) and "weights_only=False" in causes(info.value)


def with_affines(kind: str, data: list, chain: mt.Compose, folder: Path) -> Dataset:
    if kind == "persistent":
        return PersistentDataset(data, chain, cache_dir=folder, track_meta=True, weights_only=False)
    dataset = CacheNTransDataset(data, chain, 1, cache_dir=folder)
    dataset.track_meta, dataset.weights_only = True, False
    return dataset


@pytest.mark.parametrize("kind", ["persistent", "n transforms"])
@pytest.mark.parametrize("dims", [2, 3])
def test_caches_with_affines_are_right_in_all_epochs(kind: str, dims: int, tmp_path: Path) -> None:
    chain = mt.Compose([LoadLandmarksd("label"), *random_part(dims), LandmarksToIndexd("label")]).set_random_state(0)
    dataset = with_affines(kind, [source(dims, seed) for seed in range(2)], chain, tmp_path)
    for _ in range(2):
        for batch in DataLoader(dataset, batch_size=2):
            for item in decollate_batch(batch):
                on_blobs(item)
                LandmarksToWorldd("label")(item)  # batches keep the marks
    assert len(list(tmp_path.glob("*.pt"))) == 2


def test_cached_by_an_older_run_without_affines(tmp_path: Path) -> None:
    chain = mt.Compose([LoadLandmarksd("label"), *random_part(2), LandmarksToIndexd("label")])
    dataset = with_affines("persistent", [source()], chain, tmp_path)
    _ = dataset[0]
    (path,) = tmp_path.glob("*.pt")
    torch.save(convert_to_tensor(torch.load(path, weights_only=False), convert_numeric=False), path)
    with pytest.raises(RuntimeError) as info:
        _ = dataset[0]
    assert "empty cache_dir" in causes(info.value)


def test_pickled_items_keep_their_affines() -> None:
    item = pickle.loads(pickle.dumps(LoadLandmarksd("label")(source(3))))
    on_blobs(mt.Compose([*random_part(3), LandmarksToIndexd("label")]).set_random_state(1)(item))


@pytest.mark.parametrize("key", ["image", "label"])
@pytest.mark.parametrize("lose", [lambda key: mt.EnsureTyped(key, track_meta=False), mt.ToNumpyd, mt.ToTensord,
                                  lambda key: mt.Lambdad(key, lambda x: np.asarray(x))], ids=range(4))  # fmt: skip
def test_transforms_that_drop_an_affine(lose: Callable, key: str) -> None:
    lose = lose(key) if lose is not mt.ToTensord else mt.ToTensord(key, track_meta=False)
    with pytest.raises(RuntimeError) as info:
        mt.Compose([LoadLandmarksd("label"), lose, *random_part(2), LandmarksToIndexd("label")])(source())
    assert f"{key}' lost the affine" in causes(info.value)


def test_landmarks_loaded_to_an_image_that_lost_its_affine() -> None:
    lost = {**source(), "image": source()["image"].as_tensor()}
    with pytest.raises(ValueError, match="'image' has no affine"):
        LoadLandmarksd("label")(lost)
    with pytest.raises(ValueError, match="may have been lost"):
        LoadLandmarksd("label")(mt.Flipd("image", 0)(lost))


def test_points_without_affine_on_a_moved_image() -> None:
    item = {"image": source()["image"], "label": torch.tensor([[[4.0, 5.0], [6.0, 7.0]]])}
    assert torch.equal(LandmarksToIndexd("label")(item)["label"].as_tensor(), item["label"])
    with pytest.raises(ValueError, match="have no affine, but a transform of MONAI has moved the image"):
        LandmarksToIndexd("label")(mt.Flipd("image", 0)(item))


def test_the_entry_of_the_item_is_not_needed_where_points_carry_their_mark() -> None:
    chain = [LoadLandmarksd("label"), mt.SelectItemsd(["image", "label"]), mt.Lambdad("image", np.asarray)]
    with pytest.raises(RuntimeError) as info:
        mt.Compose([*chain, mt.Flipd("image", 0), LandmarksToIndexd("label")])(source())
    assert "'image' lost the affine" in causes(info.value)


def test_rows_that_are_not_loaded() -> None:
    with pytest.raises(ValueError, match="not loaded yet"):
        RandCropByLandmarksd("image", "label", 8)(source())


@pytest.mark.parametrize("move", [ResampleToSpacingd("image", 0.4), FitToGridd("image", (40, 40)),
                                  CropToForegroundd("image", 0.1)], ids=range(3))  # fmt: skip
def test_pixels_of_the_file_on_a_resampled_image(move: Any) -> None:
    item = {
        "image": source()["image"],
        "label": [[4.0, 5.0], [6.0, 7.0]],
    }  # no trace for MONAI's inverse is needed to notice it
    with pytest.raises(ValueError, match="transformed"):
        LoadLandmarksd("label")(move(item))


def test_other_images_of_the_same_world() -> None:
    both = {**source(), "other": source()["image"]}
    loaded = LoadLandmarksd("label", refer_keys="other")(both)
    on_blobs(LandmarksToIndexd("label")(mt.Flipd("image", 0)(loaded)))
    assert both["image"].meta.keys() == source()["image"].meta.keys()  # the caller's image is not marked
    late = {**loaded, "image": MetaTensor(source()["image"].as_tensor(), meta={**source()["image"].meta})}
    with pytest.raises(ValueError, match="'image' lost the affine"):
        LandmarksToIndexd("label")(late)
    late["image"].meta["filename_or_obj"] = "late.nii.gz"  # as a reader leaves it
    on_blobs(LandmarksToIndexd("label")(late))


def test_different_numbers_of_landmarks_are_not_padded() -> None:
    data = [LoadLandmarksd("label")(source()), LoadLandmarksd("label")({**source(), "label": source()["label"][:1]})]
    loader = DataLoader(Dataset(data), batch_size=2, collate_fn=mt.PadListDataCollate())
    with pytest.raises(RuntimeError, match="label_loaded"):
        next(iter(loader))
    assert next(iter(DataLoader(Dataset(data[:1] * 2), batch_size=2)))["label_loaded"].shape == (2, 2)


@pytest.mark.parametrize(
    "transform",
    [FitToGridd("image", (12, 10)), ResampleToSpacingd("image", 2.0), CropToForegroundd("image", 0.5, margin=2)],
)
def test_a_moved_image_without_affine_is_refused(transform: Any) -> None:
    """MONAI can be asked not to track metadata; the values are the same, but nothing says where they are."""
    item = source()
    expected = transform(item)["image"]
    set_track_meta(False)
    try:
        moved = transform(item)
    finally:
        set_track_meta(True)
    assert type(moved["image"]) is torch.Tensor
    torch.testing.assert_close(moved["image"], expected.as_tensor())
    with pytest.raises(ValueError, match="The image 'image' has no affine"):
        LoadLandmarksd("label")(moved)
