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

"""Networks that predict landmark heatmaps from images, in ``nets``, and the encoders that they use."""

from __future__ import annotations

from .encoders import Encoder, make_encoder
from .learned_weights import LandmarkAxis, LandmarkNetwork, learned_weights
from .pretrained import load_pretrained

__all__ = ["Encoder", "LandmarkAxis", "LandmarkNetwork", "learned_weights", "load_pretrained", "make_encoder"]
