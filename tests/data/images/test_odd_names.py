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


"""Files whose name or kind cannot be used are named and left out, and the others are read."""

from __future__ import annotations

import os
import socket

import numpy as np
import pytest
from click.testing import CliRunner
from monai.data import Dataset
from monai.transforms import LoadImaged
from PIL import Image

from monai_landmarks.apps.main import program
from monai_landmarks.data import ReadableDataLoader, image_folder_items, pair_landmarks, read_image
from monai_landmarks.data.datalists.datalist_faults import check_datalist

LONG = "n" * 246 + ".png"
NOT_TEXT = b"caf\xe9.png"


def write_picture(path):
    """A picture at a path of bytes or text."""
    with open(path, "wb") as file:
        Image.fromarray(np.arange(81, dtype=np.uint8).reshape(9, 9)).save(file, "png")


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "images"
    (images / "sub").mkdir(parents=True)
    write_picture(images / "good.png")
    write_picture(images / "sub" / LONG)
    try:
        write_picture(os.fsencode(images) + b"/" + NOT_TEXT)
    except OSError:
        pytest.skip("this file system only takes names that are text")
    os.mkfifo(images / "pipe.png")
    os.mkfifo(images / "pipe.dcm")
    with socket.socket(socket.AF_UNIX) as listener, pytest.MonkeyPatch.context() as patch:
        patch.chdir(images)  # the path of a socket is short
        listener.bind("s.nii.gz")
    (images / "link.png").symlink_to("nowhere.png")
    return tmp_path


LEFT_OUT = {
    "caf\\xe9.png": "not UTF-8",
    LONG: "250 bytes",
    "pipe.png": "a pipe",
    "pipe.dcm": "a pipe",
    "s.nii.gz": "a pipe, socket",
    "link.png": "no such file",
}


def test_inference_leaves_them_out(folder):
    items = image_folder_items(folder / "images", spacing=0.5)
    loader = ReadableDataLoader(Dataset(items, LoadImaged("image")), num_workers=0)
    assert len(list(loader)) == 1
    reasons = {os.path.basename(image): reason for image, reason in loader.unreadable}
    assert set(reasons) == set(LEFT_OUT) and all(LEFT_OUT[name] in reason for name, reason in reasons.items())


@pytest.mark.parametrize("good", [True, False])
def test_check_leaves_them_out(folder, good):
    (folder / "t.csv").write_text("image,landmark,x,y\n" + ("good.png,a,1,2\n" if good else "pipe.png,a,1,2\n"))
    pairing = pair_landmarks(folder / "images", folder / "t.csv")
    assert len(pairing.cases) == good and len(pairing.absent) == (not good)
    assert len(pairing.notes) == len(LEFT_OUT) and "".join(pairing.notes).isprintable()
    arguments = [
        "check",
        folder / "images",
        folder / "t.csv",
        "--spacing",
        "1",
        "--val-frac",
        "0",
        "--out",
        folder / "out",
    ]
    result = CliRunner().invoke(program, list(map(str, arguments)))
    assert result.exit_code == (0 if good else 1) and "caf\\xe9.png: is left out" in result.output, result.output


def test_a_pipe_in_a_datalist(folder):
    datalist = {
        "landmarks": {"names": ["a"]},
        "training": [{"image": "pipe.png", "label": [[1, 2]], "spacing": [1, 1]}],
    }
    [fault] = check_datalist(datalist, folder / "images")
    assert "cannot be read: not a file, but a pipe" in fault
    with pytest.raises(ValueError, match="a pipe"):
        read_image(folder / "images" / "pipe.png")
