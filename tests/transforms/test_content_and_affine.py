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
"""All spatial transforms of MONAI: where their content is, compared with the affine that they write.

The image holds its own index coordinates, so that each voxel of the result tells which place it shows. The affine of
the result tells which place it should show. Transforms and options that are off by more than 0.05 voxel are refused or
warned about; the others are not.
"""

from __future__ import annotations

import inspect
import itertools
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blobs import oblique
from monai import transforms as mt
from monai.data import MetaTensor
from scipy.ndimage import uniform_filter

from monai_landmarks.spaces import affine_4x4
from monai_landmarks.transforms import require_followable_transforms

SHAPE = {2: (27, 23), 3: (19, 17, 18)}
LARGEST = 0.05
TABLE = Path(inspect.getfile(require_followable_transforms)).with_name("README.md")


def coordinate_image(dims: int) -> MetaTensor:
    """One channel per axis with the index along it, and one that is 1."""
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE[dims]], indexing="ij")).astype(float)
    affine = mt.utils.to_affine_nd(3, oblique((0.7, 1.1, 0.9)[:dims]))
    return MetaTensor(torch.from_numpy(np.concatenate([grid, np.ones((1, *SHAPE[dims]))])), affine=affine)


def shift(result: MetaTensor, image: MetaTensor, dims: int) -> float:
    """Largest distance along an axis in voxels of the image between content and affine, averaged over 5^D voxels."""
    shown = result.as_tensor().double().numpy()[:dims]
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shown.shape[1:]], indexing="ij"))
    matrix = np.linalg.inv(affine_4x4(image.affine)) @ affine_4x4(result.affine)
    place = np.tensordot(matrix[:dims, :dims], grid, 1) + matrix[:dims, 3].reshape(dims, *[1] * dims)
    limits = np.reshape(SHAPE[dims], (dims, *[1] * dims)) - 1
    inside = ((place > 2.6) & (place < limits - 2.6)).all(0)  # apart from padding, and from what splines do at borders
    assert inside.any()
    weights = uniform_filter(inside.astype(float), 5, mode="constant")
    means = [uniform_filter(np.where(inside, along, 0.0), 5, mode="constant") for along in shown - place]
    full = weights > 0.999
    return float(np.abs(np.stack(means)[:, full] if full.any() else (shown - place)[:, inside].mean(1)).max())


def options(**choices: list) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values))


def grid_of(image: MetaTensor, dims: int) -> np.ndarray:
    other = np.eye(4)
    other[:2, :2] = [[1.25, 0.1], [0.0, 1.0]]
    other[:dims, 3] = [1.2, -0.7, 0.4][:dims]
    return affine_4x4(image.affine) @ other


Case = tuple[dict[str, Any], Callable[[MetaTensor], Any], Any]
MODES = ["bilinear", "nearest", 3]
CORNERS = [False, True]
PADDING = ["zeros", "border", "reflection"]


def resize_modes(dims: int) -> list[dict[str, Any]]:
    smooth = ["bilinear", "bicubic"] if dims == 2 else ["trilinear"]
    result = list(options(mode=smooth, align_corners=[None, False, True]))
    return [*result, *({"mode": mode} for mode in ("area", "nearest", "nearest-exact"))]


def resampling(name: str, dims: int) -> Iterator[Case]:  # noqa: C901
    """All options of a transform that resamples: the options, a function that applies it, and the transform."""
    turn: Any = 0.3 if dims == 2 else (0.2, 0.1, 0.3)
    larger, smaller = ([int(n * f) for n in SHAPE[dims]] for f in (1.37, 0.77))
    spline_grids = [m for m in MODES if dims == 2 or m != 3]  # torch has no cubic interpolation in 3-D

    def case(transform: Any, chosen: dict, run: Callable | None = None) -> Case:
        if hasattr(transform, "set_random_state"):
            transform.set_random_state(2)
        return chosen, run or transform, transform

    if name == "Resize":
        for o in resize_modes(dims):
            for size, smoothed in itertools.product((larger, smaller), (False, True)):
                yield case(mt.Resize(size, anti_aliasing=smoothed, **o), o)
    elif name in ("Zoom", "RandZoom"):
        for o in resize_modes(dims):
            for factor, keep in itertools.product((1.3, 0.8), (False, True)):
                if name == "Zoom":
                    yield case(mt.Zoom(factor, keep_size=keep, **o), o)
                else:
                    yield case(mt.RandZoom(1.0, factor, factor, keep_size=keep, **o), o)
    elif name in ("Rotate", "RandRotate"):
        for o in options(mode=spline_grids, align_corners=CORNERS, padding_mode=PADDING[:2], keep_size=CORNERS):
            rest = (0.3, 0.3) if dims == 3 else ()
            yield case(mt.Rotate(turn, **o) if name == "Rotate" else mt.RandRotate(0.4, *rest, prob=1.0, **o), o)
    elif name == "Affine":
        moves = {"rotate_params": turn, "scale_params": (1.2, 0.9, 1.1)[:dims], "translate_params": (1.3, -2, 1)[:dims]}
        for o in options(mode=MODES, align_corners=CORNERS, padding_mode=PADDING[:2], spatial_size=[None, larger]):
            yield case(mt.Affine(**moves, image_only=True, **o), o)
        yield case(mt.Affine(**moves, image_only=True, normalized=True), {"normalized": True})
    elif name == "RandAffine":
        for o in options(mode=MODES, padding_mode=PADDING, spatial_size=[None, larger]):
            ranges = {"rotate_range": (0.3,) * (2 * dims - 3), "translate_range": (2,) * dims}
            grid = o["spatial_size"] is not None
            yield case(mt.RandAffine(1.0, **ranges, scale_range=(0.2,) * dims, cache_grid=grid, **o), o)
    elif name == "Spacing":
        for o in options(mode=MODES, align_corners=CORNERS, scale_extent=CORNERS, diagonal=CORNERS):
            yield case(mt.Spacing((1.1, 0.8, 1.0)[:dims], **o), o)
    elif name == "SpatialResample":
        for o in options(mode=MODES, align_corners=CORNERS, padding_mode=PADDING[:2]):
            for size in (None, larger):
                t = mt.SpatialResample(**o)
                yield case(t, o, lambda x, t=t, size=size: t(x, dst_affine=grid_of(x, dims), spatial_size=size))
    elif name == "ResampleToMatch":
        for o in options(mode=MODES, align_corners=CORNERS):
            t = mt.ResampleToMatch(**o)
            yield case(
                t,
                o,
                lambda x, t=t: t(
                    x, MetaTensor(torch.zeros(1, *larger), affine=grid_of(x, dims), meta={"filename_or_obj": "a"})
                ),
            )


def may_shift(name: str, chosen: dict[str, Any]) -> bool:
    mode, corners = str(chosen.get("mode")), chosen.get("align_corners")
    if mode in ("area", "nearest", "nearest-exact") or chosen.get("normalized"):
        return True
    splines = mode == "3" and name in ("Spacing", "SpatialResample", "ResampleToMatch")
    return bool(corners) and (splines or name == "Affine")


RESAMPLING = ["Resize", "Zoom", "RandZoom", "Rotate", "RandRotate", "Affine", "RandAffine", "Spacing",
              "SpatialResample", "ResampleToMatch"]  # fmt: skip


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", RESAMPLING)
def test_resampling(name: str, dims: int) -> None:
    image = coordinate_image(dims)
    worst: dict[bool, float] = {False: 0.0, True: 0.0}
    for chosen, run, transform in resampling(name, dims):
        said = may_shift(name, chosen)
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            try:
                require_followable_transforms(transform)
                refused = False
            except ValueError:
                refused = True
        assert said == (refused or any("shifts the content" in str(w.message) for w in record)), chosen
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            off = shift(run(image), image, dims)
        assert said or off <= LARGEST, (chosen, off)
        worst[said] = max(worst[said], off)
    assert worst[True] > LARGEST, "the warning is for nothing"


@pytest.mark.parametrize("end", ["", "d"])
def test_random_affine_that_only_resizes(end: str) -> None:
    """With a fixed size, RandAffine writes the affine of its last draw even when it does nothing."""
    image = coordinate_image(2)

    def make(**options: Any) -> Any:
        keys = {"keys": "image"} if end else {}
        return getattr(mt, f"RandAffine{end}")(**keys, **{"rotate_range": 0.3, "translate_range": 2, **options})

    def worst(transform: Any, lazy: bool) -> float:
        chain = mt.Compose([transform], lazy=lazy).set_random_state(1)
        results = [chain({"image": image} if end else image) for _ in range(6)]
        return max(shift(result["image"] if end else result, image, 2) for result in results)

    assert worst(make(prob=0.5, spatial_size=(30, 30)), lazy=False) > 1
    with pytest.raises(ValueError, match="writes the affine of an earlier draw"):
        require_followable_transforms(mt.Compose([make(prob=0.5, spatial_size=(30, 30))]))
    right = [(make(prob=0.5, spatial_size=(30, 30)), True), (make(prob=1.0, spatial_size=(30, 30)), False)]
    if end:  # the array transform does so for any size
        right += [(make(prob=0.5, spatial_size=(-1, -1)), False), (make(prob=0.5), False)]
    else:
        assert worst(make(prob=0.5), lazy=False) > 1
        with pytest.raises(ValueError, match="writes the affine of an earlier draw"):
            require_followable_transforms(make(prob=0.5))
    for transform, lazy in right:
        assert worst(transform, lazy) <= LARGEST
        require_followable_transforms(mt.Compose([transform], lazy=lazy))


LAZY = [
    mt.Zoom(0.8, mode="bilinear", keep_size=False),
    mt.Affine(scale_params=(1.2, 1.1), align_corners=True, image_only=True),
    mt.Flip(0),
    mt.Rotate(0.3),
    mt.SpatialPad((31, 29)),
    mt.CenterSpatialCrop((21, 19)),
    mt.Spacing((0.9, 0.9)),
]


@pytest.mark.parametrize("pair", itertools.permutations(range(len(LAZY)), 2), ids=str)
def test_lazy_pairs_are_exact(pair: tuple[int, int]) -> None:
    image = coordinate_image(2)
    result = mt.Compose([LAZY[i] for i in pair], lazy=True)(image)
    assert shift(result, image, 2) <= LARGEST


def exact(dims: int) -> dict[str, list[Any]]:
    """Transforms that move whole voxels, with their options."""
    large, small = ([n + d for n in SHAPE[dims]] for d in (5, -4))
    odd = [large[0], *small[1:]]
    ones = torch.ones(1, *SHAPE[dims])
    modes = ["constant", "edge", "reflect", "wrap", "circular", "replicate", "mean", "symmetric"]
    labels = (("L", "R"), ("P", "A"), ("I", "S"))
    return {
        "Flip": [mt.Flip(0), mt.Flip()],
        "RandFlip": [mt.RandFlip(1.0, dims - 1)],
        "RandAxisFlip": [mt.RandAxisFlip(1.0)],
        "Rotate90": [mt.Rotate90(k) for k in (1, 2, 3)],
        "RandRotate90": [mt.RandRotate90(1.0)],
        "Orientation": [mt.Orientation(code[:dims], labels=labels) for code in ("LPS", "RAS", "PLI")[:dims]],
        "Pad": [mt.Pad([(0, 0), *[(2, 3)] * dims], mode=m) for m in modes],
        "SpatialPad": [mt.SpatialPad(large, method=end, mode=m) for m in modes for end in ("symmetric", "end")],
        "BorderPad": [mt.BorderPad([3, 5] * dims, mode=m) for m in modes],
        "DivisiblePad": [mt.DivisiblePad(8, mode=m) for m in modes],
        "ResizeWithPadOrCrop": [mt.ResizeWithPadOrCrop(odd, mode=m) for m in modes],
        "Crop": [],  # the base of the others
        "SpatialCrop": [mt.SpatialCrop(roi_start=[3] * dims, roi_end=small)],
        "CenterSpatialCrop": [mt.CenterSpatialCrop(small)],
        "CenterScaleCrop": [mt.CenterScaleCrop(0.77)],
        "RandSpatialCrop": [mt.RandSpatialCrop(small, random_size=size) for size in (True, False)],
        "RandScaleCrop": [mt.RandScaleCrop(0.7, random_size=False)],
        "RandSpatialCropSamples": [mt.RandSpatialCropSamples(small, 2, random_size=False)],
        "CropForeground": [
            mt.CropForeground(select_fn=lambda x: x[:1] > 4, margin=1),
            mt.CropForeground(select_fn=lambda x: x[:1] > 4, k_divisible=8, allow_smaller=False),
        ],
        "RandWeightedCrop": [lambda x: mt.RandWeightedCrop(small, 2)(x, weight_map=ones)],
        "RandCropByPosNegLabel": [lambda x: mt.RandCropByPosNegLabel(small)(x, label=ones)],
        "RandCropByLabelClasses": [
            lambda x: mt.RandCropByLabelClasses(small, num_classes=2, ratios=[1, 1])(x, label=ones)
        ],
    }


@pytest.mark.parametrize("dims", [2, 3])
def test_exact_transforms(dims: int) -> None:
    image = coordinate_image(dims)
    for name, transforms in exact(dims).items():
        for transform in transforms:
            if hasattr(transform, "set_random_state"):
                transform.set_random_state(1)
            results = transform(image)
            for result in results if isinstance(results, list) else [results]:
                assert shift(result, image, dims) < 1e-5, name


UNFOLLOWED: dict[str, Callable[[int], Any]] = {
    "Rand2DElastic": lambda dims: mt.Rand2DElastic((10, 10), (2, 3), prob=1.0),
    "Rand3DElastic": lambda dims: mt.Rand3DElastic((3, 4), (60, 90), prob=1.0),
    "GridDistortion": lambda dims: mt.GridDistortion(4, [(1.1, 1.2, 0.8, 1.1, 0.9)] * dims),
    "RandGridDistortion": lambda dims: mt.RandGridDistortion(prob=1.0, distort_limit=0.3),
    "RandSmoothDeform": lambda dims: mt.RandSmoothDeform(SHAPE[dims], (5,) * dims, prob=1.0, def_range=0.1),
    "RandSimulateLowResolution": lambda dims: mt.RandSimulateLowResolution(
        prob=1.0, upsample_mode="bilinear" if dims == 2 else "trilinear"
    ),
    "Transpose": lambda dims: mt.Transpose([0, *range(dims, 0, -1)]),
}
# these return several parts of the image, all with the affine of the whole
PARTS = {
    "GridSplit": lambda: mt.GridSplit((2, 2)),
    "GridPatch": lambda: mt.GridPatch((8, 8)),
    "RandGridPatch": lambda: mt.RandGridPatch((8, 8)),
}
# of other data than images, bases of others, or grids that other transforms use
OTHERS = {"BoundingRect", "ConvertBoxToPoints", "ConvertPointsToBoxes", "AffineGrid", "RandAffineGrid",
          "RandDeformGrid", "Resample", "SmoothField", "RandSmoothFieldAdjustContrast",
          "RandSmoothFieldAdjustIntensity"}  # fmt: skip


@pytest.mark.parametrize(
    "name, dims", [(name, dims) for name in UNFOLLOWED for dims in (2, 3) if name != f"Rand{5 - dims}DElastic"]
)
def test_unfollowed_transforms_are_off_and_refused(name: str, dims: int) -> None:
    image, transform = coordinate_image(dims), UNFOLLOWED[name](dims)
    if hasattr(transform, "set_random_state"):
        transform.set_random_state(1)
    assert shift(transform(image), image, dims) > LARGEST
    with pytest.raises(ValueError, match=name):
        require_followable_transforms(transform)


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_an_image_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        require_followable_transforms(PARTS[name]())


@pytest.mark.parametrize("name", ["TorchVision", "RandTorchVision", "TorchIO", "RandTorchIO", "CuCIM", "RandCuCIM"])
@pytest.mark.parametrize("end", ["", "d"])
def test_other_libraries_are_warned_of(name: str, end: str) -> None:
    kind = getattr(mt, name + end)
    transform = kind.__new__(kind)  # without the other library
    transform.keys = ("image",)
    with pytest.warns(UserWarning, match="another library"):
        require_followable_transforms(transform)


def test_options_of_other_images_do_not_count() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        require_followable_transforms(mt.Resized(("image", "mask"), (4, 4), mode=("bilinear", "nearest")))
    with pytest.warns(UserWarning, match="Resized resamples 'mask' in mode \"nearest\""):
        require_followable_transforms(mt.Resized(("image", "mask"), (4, 4), mode=("bilinear", "nearest")), "mask")


def spatial_transforms() -> set[str]:
    """All array transforms in MONAI's spatial, crop and pad, and smooth field modules."""
    modules = [mt.spatial.array, mt.croppad.array, mt.smooth_field.array]
    return {
        name
        for module in modules
        for name, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == module.__name__
    }


def test_all_transforms_are_in_the_sweep_and_in_the_table() -> None:
    known = {*RESAMPLING, *exact(2), *UNFOLLOWED, *PARTS, *OTHERS} - {"Transpose"}
    assert spatial_transforms() == known
    rows = set(re.findall(r"`(\w+)`", TABLE.read_text()))
    assert known - OTHERS - {"Crop"} <= rows
