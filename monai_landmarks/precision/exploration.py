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


"""How often a search tries something at random."""

from __future__ import annotations

__all__ = ["LinearExploration"]


class LinearExploration:
    """
    A probability that falls linearly over the first part of the search, and stays.

    Args:
        start: at the first decision.
        end: from ``until`` on.
        until: part of the search, 0 to 1.

    Raises:
        ValueError: for probabilities outside [0, 1] or an ``until`` that is not positive.

    Example:
        >>> exploration = LinearExploration(0.5, 0.05, until=0.5)
        >>> [round(exploration(progress), 3) for progress in (0.0, 0.25, 0.5, 1.0)]
        [0.5, 0.275, 0.05, 0.05]
    """

    def __init__(self, start: float = 0.5, end: float = 0.05, until: float = 0.5) -> None:
        if not (0 <= start <= 1 and 0 <= end <= 1 and until > 0):
            raise ValueError(f"expected probabilities and a positive until, got {start}, {end} and {until}.")
        self.start, self.end, self.until = start, end, until

    def __call__(self, progress: float) -> float:
        """The probability when that part of the search is done."""
        return self.start + (self.end - self.start) * min(max(progress / self.until, 0.0), 1.0)
