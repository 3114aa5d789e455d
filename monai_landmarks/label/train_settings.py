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


"""How a bundle that was made for a fixed data set learns from the labels that there are by now."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["split_labels", "training_overrides"]

_FEWEST_TO_SPLIT = 4
_MISSING_IS_ABSENT = ("absent", "chain")  # what losses may take a missing landmark for, wholly or in part


def split_labels(
    items: Sequence[dict[str, Any]], val_split: float = 0.2
) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """Labels for training and for validation.

    Every k-th one validates, so that old and new labels do. With fewer than four labels all do both: the best weights are then
    those that know them best, which is still better than to lose one of two images.

    Args:
        items: of the datalist.
        val_split: fraction for the validation; negative: the bundle has its own.

    Returns:
        training and validation; None for that of the bundle.

    Example:
        >>> train, validation = split_labels([{"image": str(i)} for i in range(10)], 0.2)
        >>> [item["image"] for item in validation], len(train)
        (['4', '9'], 8)
    """
    if val_split < 0:
        return list(items), None
    if len(items) < _FEWEST_TO_SPLIT or val_split == 0:
        return list(items), list(items)
    count = min(max(1, round(val_split * len(items))), len(items) // 2)
    chosen = {round((i + 1) * len(items) / count) - 1 for i in range(count)}
    train = [item for i, item in enumerate(items) if i not in chosen]
    return train, [items[i] for i in sorted(chosen)]


def training_overrides(config: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of ``configs/train.json`` that a training from labels needs besides those of MONAI Label.

    * ``max_epochs`` itself, which schedules of the learning rate are made for, and not only the trainer's.
    * Where the training goes on from the weights there are, the validation runs before the first epoch: they must be
      beaten, or they stay.
    * ``missing`` of the loss: what a label leaves out is not known to be absent.

    Args:
        config: of the bundle.
        given: MONAI Label's overrides.

    Returns:
        further overrides.
    """
    result: dict[str, Any] = {}
    if "max_epochs" in config:
        result["max_epochs"] = given["train#trainer#max_epochs"]
    handlers = copy.deepcopy(list(given["train#handlers"]))
    kinds = [
        str(handler.get("_target_")).rpartition(".")[2] if isinstance(handler, dict) else "" for handler in handlers
    ]
    for handler, kind in zip(handlers, kinds):
        if kind == "ValidationHandler" and "CheckpointLoader" in kinds:
            handler["exec_at_start"] = True
    result["train#handlers"] = handlers
    for key, value in config.items():
        if isinstance(value, dict) and value.get("missing", "ignore") in _MISSING_IS_ABSENT:
            result[f"{key}#missing"] = "ignore"
    return result
