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

"""Public benchmarks of landmark localization: contents, owners, and which of their files this package reads.

The data are not part of this package. Licences are stated as the owners state them; if they state none, that is said.
Read the owners' terms before you download anything.
"""

from __future__ import annotations

from .aasce import AASCE
from .afids import AFIDS
from .hand import HAND
from .isbi2015 import ISBI2015
from .mml import MML
from .public_dataset import PublicDataset
from .verse import VERSE

__all__ = ["PUBLIC_DATASETS", "public_dataset"]

PUBLIC_DATASETS: dict[str, PublicDataset] = {
    dataset.name: dataset for dataset in (ISBI2015, HAND, AASCE, AFIDS, VERSE, MML)
}


def public_dataset(name: str) -> PublicDataset:
    """Return a benchmark by its short name.

    Raises:
        ValueError: if there is no benchmark with this name.

    Example:
        >>> public_dataset("aasce").landmarks
        68
    """
    if name not in PUBLIC_DATASETS:
        raise ValueError(f"dataset {name!r} is unknown; expected one of {', '.join(PUBLIC_DATASETS)}.")
    return PUBLIC_DATASETS[name]
