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

"""Groups of landmarks of structures that look alike, such as corners of vertebrae, and the network of their centers."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np

from monai_landmarks import bundle_path
from monai_landmarks.transforms import groups_by_name

from .batch import choose_max_epochs
from .chain import chain_arguments
from .choice import Choice, Choices
from .data_summary import DataSummary

__all__ = [
    "CENTERS",
    "choose_groups",
    "group_extent",
    "group_rows",
    "groups_config",
    "centers_config",
    "centers_epochs",
    "shortest_step",
]

# the configuration of the network of the centers
CENTERS = "$@bundle_root + '/configs/centers.json'"
# the shipped bundle whose close look works on groups
_TEMPLATE = "spine_xray_landmarks_farnet"
# two landmarks per structure, such as left and right, have the same shape everywhere in the body
_FEWEST_GROUPS, _FEWEST_LANDMARKS = 3, 3
_IN_ORDER = 0.95  # share of the training images in which the groups follow one another
# root mean square difference between the shape of a group and the mean of its image, relative to the size of a group.
# It is at most 0.32 in spines.
_ALIKE = 0.5
# extent of a group relative to the distance to the next one: a patch then shows little else. It is 2.8 in spines.
_WIDEST = 4.0
# of the network of the centers, as in the shipped bundle: more steps lowered the loss on its training images only
_STEPS = 960


def choose_groups(summary: DataSummary, is_possible: bool = True) -> Choice:
    """Choose groups of landmarks that look alike and follow one another: lists of names, by the beginnings of the names.

    Args:
        summary: summary of the data.
        is_possible: whether dimension and method can be combined with groups.
    """
    names, points = summary.names, summary.training_points
    groups = groups_by_name(names, shared=False).groups
    parts = {tuple(names[row].rpartition("_")[2] for row in rows) for rows in groups}
    if len(parts) > 1 or len(groups) < _FEWEST_GROUPS or len(groups[0]) < _FEWEST_LANDMARKS:
        return Choice([], "the names are not those of structures with the same parts, such as L1_TL, L1_TR, L1_BL")
    if not is_possible:
        return Choice([], "only in 2-D, and not with a target precision that follows the errors")
    if points is None or not np.isfinite(points).all(axis=(1, 2)).any():
        return Choice(
            [], "structures with the same parts, but no training image shows all landmarks, so nothing was measured"
        )
    if not _in_order(points, groups) or not _alike(points, groups):
        return Choice([], "structures with the same parts, but they do not look alike or do not follow one another")
    if _extent(points, groups) > _WIDEST * _steps(points, groups).min():
        return Choice([], "structures with the same parts, but they lie beside each other over a great length")
    return Choice(
        [[names[row] for row in rows] for rows in groups],
        f"{len(groups)} structures with the same {len(groups[0])} landmarks look alike and follow one another: the close"
        " look finds their centers first, then the landmarks of each structure with the same network",
    )


def group_rows(choices: Choices, summary: DataSummary) -> list[list[int]]:
    """Return the rows of the landmarks of each group, in the order of the groups. Empty: there are no groups.

    Raises:
        ValueError: for given groups that do not have all landmarks once, or have different sizes.
    """
    groups = choices["groups"].value if "groups" in choices else []
    is_list = isinstance(groups, list) and all(isinstance(group, list) for group in groups)
    if groups and not (
        is_list
        and len(groups) > 1
        and all(isinstance(name, str) for group in groups for name in group)
        and len({len(group) for group in groups}) == 1
        and sorted(name for group in groups for name in group) == sorted(summary.names)
    ):
        raise ValueError(
            f"groups are {groups!r}; expected lists of the same length that have each landmark once, or []."
        )
    return [[summary.names.index(name) for name in group] for group in groups or []]


def group_extent(choices: Choices, summary: DataSummary) -> float:
    """Return the longest side of a group in mm, the median over the training images of the largest group."""
    return _extent(summary.training_points, group_rows(choices, summary))


def shortest_step(choices: Choices, summary: DataSummary) -> float:
    """Return the distance in mm from a group to the next, the median over the training images of the closest two.

    Raises:
        ValueError: for two given groups that no training image has both, or that have the same center.
    """
    steps = _steps(summary.training_points, group_rows(choices, summary))
    if not (steps > 0).all():
        first = int(np.argmin(steps > 0))
        pair = choices["groups"].value[first : first + 2]
        raise ValueError(f"groups: no training image shows {pair[0]} and {pair[1]} at two places.")
    return float(steps.min())


def centers_config(train: dict[str, Any], choices: Choices, summary: DataSummary) -> dict[str, Any]:
    """Return the configuration of the network that finds the centers of the groups, for after ``train.json``.

    Args:
        train: configuration of training.
        choices: all choices.
        summary: summary of the data.
    """
    config = _template()
    rows, value = group_rows(choices, summary), {name: choice.value for name, choice in choices.items()}
    for name in ("spatial_size", "validate#additional_metrics"):
        del config[name]
    config["batch_size"] = _batch_size(config, summary)
    config["max_epochs"] = config["val_interval"] = centers_epochs(summary)
    config["center_groups"] = groups_config(rows)
    network, sides = config["network_def"], value["spatial_size"]
    shipped = network["features"]
    network["features"] = [number * value["width"] // shipped[0] for number in shipped]
    network["stride"] = next(
        (stride for stride in (4, 2) if all(side >= 32 * stride and side % stride == 0 for side in sides)), 1
    )
    config["augmentation"] = deepcopy(train["augmentation"])
    partners = _partners(summary, rows)
    pairs = [[group, other] for group, other in enumerate(partners) if group < other]
    for transform in config["augmentation"]:
        if transform["_target_"].endswith("RandLandmarkFlipd"):
            transform.update(pairs=pairs, one_sided=[])
    chain = config["inferer"]["chain"]
    chain.update(chain_arguments([list(range(len(rows)))], _centers_on_grid(choices, summary)))
    del config["center_rows"], config["center_offsets"]
    if value["flip"]:
        config["inferer"]["mirror"] = partners
    else:
        del config["inferer"]["mirror"]
    if "softmax" in train:
        config["softmax"] = False  # the inferer ends in points
    return config


def centers_epochs(summary: DataSummary) -> int:
    """Return the number of epochs of the training of the centers."""
    return choose_max_epochs(summary, _batch_size(_template(), summary), _STEPS).value


def _template() -> dict[str, Any]:
    path = bundle_path(_TEMPLATE) / "configs" / "centers.json"
    return json.loads(path.read_text(encoding="utf-8"))


def _batch_size(template: dict[str, Any], summary: DataSummary) -> int:
    return min(template["batch_size"], summary.counts[0])


def groups_config(rows: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Return the configuration of groups that share their channels."""
    return {
        "_target_": "monai_landmarks.transforms.LandmarkGroups",
        "num_landmarks": "$len(@names)",
        "groups": [list(group) for group in rows],
        "shared": True,
    }


def _grouped(points: np.ndarray | None, rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the landmarks (n, N, D) as (n, G, P, D)."""
    assert points is not None
    return points[:, np.array(rows)]


def _extent(points: np.ndarray | None, rows: Sequence[Sequence[int]]) -> float:
    """Return the longest side of the largest group, of its known landmarks."""
    grouped = _grouped(points, rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy warns of a group without known landmarks
        sides = np.nanmax(grouped, axis=2) - np.nanmin(grouped, axis=2)
    return float(np.nanmax(_nanmedian(sides)))


def _steps(points: np.ndarray | None, rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the usual distances (G - 1,) from a group to the next."""
    return _nanmedian(np.linalg.norm(np.diff(_centers(points, rows), axis=1), axis=-1))


def _nanmedian(values: np.ndarray) -> np.ndarray:
    """Return the median over the images, NaN where no image has a value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy warns of a median without values
        return np.nanmedian(values, axis=0)


def _centers(points: np.ndarray | None, rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the centers of the groups (n, G, D), NaN for a group without a known landmark."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy warns of a mean without values
        return np.nanmean(_grouped(points, rows), axis=2)


def _in_order(points: np.ndarray, rows: Sequence[Sequence[int]]) -> bool:
    """Return whether each group lies further along the line from the first to the last one than that before."""
    centers = _centers(points, rows)
    centers = centers[np.isfinite(centers).all(axis=(1, 2))]
    line = centers[:, -1:] - centers[:, :1]
    forward = ((np.diff(centers, axis=1) * line).sum(axis=-1) > 0).all(axis=1)
    return bool(len(centers)) and bool(forward.mean() >= _IN_ORDER)


def _alike(points: np.ndarray, rows: Sequence[Sequence[int]]) -> bool:
    """Return whether the groups of an image have nearly the same shape, and each landmark its own place in it.

    Landmarks that change their places, such as those that face the middle of a row of teeth, have no such place.
    """
    grouped = _grouped(points, rows)
    grouped = grouped[np.isfinite(grouped).all(axis=(1, 2, 3))]
    offset = grouped - grouped.mean(axis=2, keepdims=True)
    size = np.sqrt((offset**2).sum(axis=-1).mean(axis=-1))
    if not len(size) or not size.all():
        return False
    shapes = offset / size[..., None, None]
    difference = np.sqrt(((shapes - shapes.mean(axis=1, keepdims=True)) ** 2).sum(axis=-1).mean(axis=(0, 2)))
    usual = shapes.mean(axis=0)
    distances = np.linalg.norm(usual[:, :, None] - usual.mean(axis=0), axis=-1)
    has_own_place = (distances.argmin(axis=-1) == np.arange(len(rows[0]))).all()
    return bool(has_own_place and difference.max() <= _ALIKE)


def _partners(summary: DataSummary, rows: Sequence[Sequence[int]]) -> list[int]:
    """Return for each group the group that it becomes in a mirrored image, mostly itself."""
    partner = {name: other for pair in summary.pairs for name, other in (pair, pair[::-1])}
    group_of = {summary.names[row]: group for group, members in enumerate(rows) for row in members}
    return [group_of[partner.get(summary.names[members[0]], summary.names[members[0]])] for members in rows]


def _centers_on_grid(choices: Choices, summary: DataSummary) -> np.ndarray:
    """Return the centers of the groups in the training images, in voxels of the grid up to a shift, (n, G, D)."""
    count = summary.counts[0]
    # as FitToGrid: each image fills the grid, or has voxels of one size, unless it is too large for them
    step = (summary.extents[:count] / choices["spatial_size"].value).max(axis=1, keepdims=True)
    if choices["resampling"].value == "spacing":
        step = np.maximum(step, choices["spacing_mm"].value)
    scale = np.array(summary.spacings[:count]) / step
    return _centers(summary.training_voxels, group_rows(choices, summary)) * scale[:, None, :]
