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
"""``python -m monai_landmarks.data.datasets.phantom hand|spine FOLDER --num_images N --seed S``: write a phantom."""

from __future__ import annotations

import fire

from monai_landmarks.data.datasets.phantom import write_hand_phantom, write_spine_phantom

fire.Fire({"hand": write_hand_phantom, "spine": write_spine_phantom})
