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

"""Gray from color, against Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage
from PIL import Image

from monai_landmarks.transforms import ToGray, ToGrayd


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA"])
@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_equals_pillow(mode, kind):
    channels = len(mode)
    pixels = np.random.default_rng(0).integers(0, 255, (6, 5, channels), dtype=np.uint8)
    expected = np.array(Image.fromarray(pixels.squeeze(), mode).convert("L"), dtype=float)
    gray = ToGray()(kind(np.moveaxis(pixels, -1, 0)))
    assert gray.shape == (1, 6, 5)
    assert np.abs(np.asarray(gray)[0] - expected).max() <= 0.51  # Pillow rounds to whole numbers


def test_affine_is_kept():
    image = MetaTensor(torch.rand(3, 4, 5), affine=torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0])))
    gray = ToGrayd("image")({"image": image})["image"]
    assert isinstance(gray, MetaTensor) and torch.equal(gray.affine, image.affine)


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match="channels"):
        ToGray()(np.zeros((5, 4, 4)))


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_channels_of_a_volume_are_no_colors(channels):
    volume = MetaTensor(torch.rand(channels, 4, 5, 6), meta={"filename_or_obj": "brain.nii.gz"})
    with pytest.raises(ValueError, match=rf"brain\.nii\.gz: is a volume with {channels} channels"):
        ToGrayd("image")({"image": volume})
    assert ToGray()(volume[..., :1]).shape == (1, 4, 5, 1)  # a color picture in DICOM
    assert ToGray()(volume[:1]).shape == (1, 4, 5, 6)


@pytest.mark.parametrize("mode, suffix", [("P", ".png"), ("CMYK", ".jpg")])
def test_numbers_that_are_no_brightness_are_refused(tmp_path, mode, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 5, 3), dtype=np.uint8)).convert(mode).save(path)
    image = LoadImage(ensure_channel_first=True)(path)
    with pytest.raises(ValueError, match=f"a{suffix}.*mode {mode}"):
        ToGray()(image)
