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

"""Presence of a landmark in an image: a threshold of its score, chosen on cases with known presence."""

from __future__ import annotations

import json
import logging
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from monai_landmarks.data import atomic_write

__all__ = ["PresenceThreshold", "choose_presence_threshold"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PresenceThreshold:
    """A threshold of the score, with its sensitivity and specificity on the cases on which it was chosen.

    Args:
        threshold: a landmark with a score above it counts as present.
        sensitivity: fraction of the present landmarks with a score above the threshold.
        specificity: fraction of the absent landmarks with a score not above the threshold.
        num_present: number of present landmarks.
        num_absent: number of absent landmarks.
    """

    threshold: float
    sensitivity: float
    specificity: float
    num_present: int
    num_absent: int

    def __str__(self) -> str:
        return (
            f"present above a score of {self.threshold:.4g}: {100 * self.sensitivity:.1f} % of {self.num_present} "
            f"present and {100 * self.specificity:.1f} % of {self.num_absent} absent landmarks recognized"
        )

    def write(self, path: str | os.PathLike) -> None:
        """Write a JSON file, usually beside the network weights."""
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=4) + "\n")

    @classmethod
    def read(cls, path: str | os.PathLike, default: float | None = None) -> PresenceThreshold:
        """Read a file that :meth:`write` has written.

        Args:
            path: the file.
            default: threshold that is used, with a warning, if the file does not exist. None: this is an error.

        Raises:
            ValueError: if the file does not exist or contains something else.
        """
        if not Path(path).is_file():
            missing = f"{os.fspath(path)}: there is no such file; a training writes it at its best validation"
            if default is None:
                raise ValueError(f"{missing}. Train the bundle first, or copy the file.")
            logger.warning(f"{missing}. The threshold {default:g} is used, which was not chosen on validation cases.")
            return cls(default, math.nan, math.nan, 0, 0)
        try:
            return cls(**json.loads(Path(path).read_text()))
        except (TypeError, json.JSONDecodeError) as e:
            raise ValueError(f"{path} does not hold a presence threshold: {e}") from e


def choose_presence_threshold(scores: torch.Tensor, present: torch.Tensor) -> PresenceThreshold:
    """Choose the threshold of the score that best separates present from absent landmarks.

    The threshold has the largest sum of sensitivity and specificity (Youden, Cancer 3, 1950). It lies in the middle
    between the two scores that it separates. Choose it on validation cases and not on test cases: sensitivity and
    specificity are slightly optimistic, because they are those of the cases on which the threshold was chosen.

    Args:
        scores: (...) scores of landmarks, such as the maximum of each heatmap; NaN for a landmark that was not found,
            which counts as absent for every threshold.
        present: (...) bool, whether the landmark is in the image.

    Returns:
        The threshold. Of several that are equally good, the one with the highest sensitivity.

    Raises:
        ValueError: if the shapes differ, or if all landmarks are present or all are absent.

    Example:
        >>> scores, present = torch.tensor([0.9, 0.7, 0.5, 0.2]), torch.tensor([True, True, False, False])
        >>> round(choose_presence_threshold(scores, present).threshold, 3)
        0.6
    """
    if scores.shape != present.shape:
        raise ValueError(
            f"scores of shape {tuple(scores.shape)} do not belong to presence of shape {tuple(present.shape)}."
        )
    scores = scores.detach().double().flatten().nan_to_num(nan=-torch.inf, neginf=-torch.inf, posinf=torch.inf)
    present = present.flatten().bool().to(scores.device)
    num_present, num_absent = int(present.sum()), int((~present).sum())
    if not num_present or not num_absent:
        raise ValueError(
            f"there are {num_present} present and {num_absent} absent landmarks; the choice of a threshold requires "
            "both. If no landmark is ever absent, use no threshold (threshold=None)."
        )
    levels = scores[scores.isfinite()].unique()
    # below the lowest score, between neighbors, and at the highest score, which none exceeds
    middle = (levels[1:] + levels[:-1]) / 2
    lowest = levels[:1] - 1
    if scores.isneginf().any():  # scores below a limit were not seen, so they must not count
        lowest = torch.nextafter(levels[:1], levels.new_tensor(-torch.inf))
    candidates = torch.cat([lowest, middle, levels[-1:]]) if len(levels) else levels.new_zeros(1)
    sensitivity = (scores[present][None] > candidates[:, None]).double().mean(dim=1)
    specificity = (scores[~present][None] <= candidates[:, None]).double().mean(dim=1)
    best = int((sensitivity + specificity).argmax())
    return PresenceThreshold(
        float(candidates[best]), float(sensitivity[best]), float(specificity[best]), num_present, num_absent
    )
