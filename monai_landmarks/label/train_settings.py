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


"""Settings with which a bundle that was made for a fixed dataset is trained with the current labels."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["split_labels", "training_overrides"]

_FEWEST_TO_SPLIT = 4
_MISSING_IS_ABSENT = ("absent", "chain")  # options of a loss that treat some or all missing landmarks as absent


def split_labels(
    items: Sequence[dict[str, Any]], val_frac: float = 0.2
) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """Split labels into training and validation.

    The validation labels are evenly spaced, so both parts contain old and new labels. With fewer than four labels, all
    labels are used for both. Validation then rewards weights that reproduce the training labels, but no label is lost
    for training.

    Args:
        items: items of a datalist.
        val_frac: fraction for validation, the setting ``val_split`` of MONAI Label. If negative, the bundle has its own
            validation data. If 0, all labels are used for both.

    Returns:
        The training items, and the validation items or None if the bundle has its own.

    Example:
        >>> train, validation = split_labels([{"image": str(i)} for i in range(10)], 0.2)
        >>> [item["image"] for item in validation], len(train)
        (['4', '9'], 8)
    """
    if val_frac < 0:
        return list(items), None
    if len(items) < _FEWEST_TO_SPLIT or val_frac == 0:
        return list(items), list(items)
    count = min(max(1, round(val_frac * len(items))), len(items) // 2)
    chosen = {round((i + 1) * len(items) / count) - 1 for i in range(count)}
    train = [item for i, item in enumerate(items) if i not in chosen]
    return train, [items[i] for i in sorted(chosen)]


def training_overrides(config: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides of ``configs/train.json`` that a training with labels needs in addition to those of MONAI
    Label.

    * ``max_epochs``, because learning rate schedules depend on it. MONAI Label only overrides that of the trainer.
    * If the training continues from existing weights, the validation also runs before the first epoch. New weights then
      replace the existing ones only if they are better.
    * ``missing`` of the loss: landmarks that a label leaves out may be present, so the loss must ignore them. For the
      same reason, no presence threshold is chosen.

    Args:
        config: configuration of the bundle.
        given: overrides of MONAI Label.

    Returns:
        Additional overrides.
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
    result.update((f"{key}#missing", "ignore") for key in _losses_with_absent(config))
    validating = config.get("validate", {}).get("handlers", [])
    kept = [one for one in validating if not (isinstance(one, dict) and _chooses_presence(one))]
    if len(kept) < len(validating):
        result["validate#handlers"] = kept
    return result


def _chooses_presence(handler: Mapping[str, Any]) -> bool:
    return str(handler.get("_target_")).endswith(".PresenceReport")


def _losses_with_absent(config: Any, path: str = "") -> Iterator[str]:
    """Yield the keys of the definitions, also of those inside others, that count missing landmarks as absent."""
    if isinstance(config, dict):
        if path and config.get("missing", "ignore") in _MISSING_IS_ABSENT:
            yield path
        for key, value in config.items():
            yield from _losses_with_absent(value, f"{path}#{key}" if path else key)
