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


"""Whether a landmark is in the image at all: a threshold of its score, chosen on cases that are known."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

__all__ = ["PresenceThreshold", "choose_presence_threshold"]


@dataclass(frozen=True)
class PresenceThreshold:
    """A threshold, and what it reached on the cases on which it was chosen.

    Args:
        threshold: a landmark is taken to be present if its score is above it.
        sensitivity: share of the present landmarks whose score is above it.
        specificity: share of the absent landmarks whose score is not.
        num_present: landmarks that were present.
        num_absent: landmarks that were absent.
    """

    threshold: float
    sensitivity: float
    specificity: float
    num_present: int
    num_absent: int

    def __str__(self) -> str:
        return (
            f"present above a score of {self.threshold:.4g}: {100 * self.sensitivity:.1f} % of {self.num_present} present "
            f"and {100 * self.specificity:.1f} % of {self.num_absent} absent landmarks told rightly"
        )

    def write(self, path: str | os.PathLike) -> None:
        """Write it as JSON, beside the weights to which it belongs."""
        Path(path).write_text(json.dumps(asdict(self), indent=4) + "\n")

    @classmethod
    def read(cls, path: str | os.PathLike) -> PresenceThreshold:
        """
        Read what :meth:`write` has written.

        Raises:
            ValueError: when the file does not hold that.
        """
        try:
            return cls(**json.loads(Path(path).read_text()))
        except (TypeError, json.JSONDecodeError) as e:
            raise ValueError(f"{path} does not hold a presence threshold: {e}") from e


def choose_presence_threshold(score: torch.Tensor, present: torch.Tensor) -> PresenceThreshold:
    """
    The threshold of the score that tells best which landmarks are present: the one with the largest sum of sensitivity and
    specificity (Youden, Cancer 3, 1950), in the middle between the two scores that it separates.

    Choose it on validation cases, never on those that are reported: its sensitivity and specificity are those of the cases
    on which it was chosen, and a little too good.

    Args:
        score: (...) of landmarks, such as the maximum of each heatmap; NaN for what was not found, which no threshold makes
            present.
        present: (...) bool, whether the landmark is in the image.

    Returns:
        :class:`PresenceThreshold`. Of several that are equally good, the one with the highest sensitivity.

    Raises:
        ValueError: for shapes that differ, and where all landmarks are present or all absent: then nothing can be chosen.

    Example:
        >>> score, present = torch.tensor([0.9, 0.7, 0.5, 0.2]), torch.tensor([True, True, False, False])
        >>> round(choose_presence_threshold(score, present).threshold, 3)
        0.6
    """
    if score.shape != present.shape:
        raise ValueError(
            f"scores of shape {tuple(score.shape)} do not belong to presence of shape {tuple(present.shape)}."
        )
    score = score.detach().double().flatten().nan_to_num(nan=-torch.inf, neginf=-torch.inf, posinf=torch.inf)
    present = present.flatten().bool().to(score.device)
    num_present, num_absent = int(present.sum()), int((~present).sum())
    if not num_present or not num_absent:
        raise ValueError(
            f"there are {num_present} present and {num_absent} absent landmarks; a threshold is chosen between both. Without "
            "absent ones keep all: threshold=None."
        )
    levels = score[score.isfinite()].unique()
    # below all, between neighbors, above all
    middle = (levels[1:] + levels[:-1]) / 2
    candidates = torch.cat([levels[:1] - 1, middle, levels[-1:]]) if len(levels) else levels.new_zeros(1)
    sensitivity = (score[present][None] > candidates[:, None]).double().mean(dim=1)
    specificity = (score[~present][None] <= candidates[:, None]).double().mean(dim=1)
    best = int((sensitivity + specificity).argmax())
    return PresenceThreshold(
        float(candidates[best]), float(sensitivity[best]), float(specificity[best]), num_present, num_absent
    )
