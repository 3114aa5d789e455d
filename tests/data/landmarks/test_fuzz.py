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


"""Damaged landmark files: every one gives a ValueError that names it, or landmarks; and nothing else is left behind.

``MONAI_LANDMARKS_FUZZ`` is the number of inputs, 2000 if it is not set; 20000 take a minute::

    MONAI_LANDMARKS_FUZZ=20000 pytest tests/data/landmarks/test_fuzz.py
"""

from __future__ import annotations

import gzip
import io
import json
import os
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_landmarks.data import LandmarkSet, convert_landmarks, write_landmark_table, write_landmarks
from monai_landmarks.data.landmarks.landmark_io import read_landmark_sets

EXAMPLES = Path(__file__).parent / "examples"
INPUTS = int(os.environ.get("MONAI_LANDMARKS_FUZZ", "2000"))
GROUPS = 20  # so that a failure can be run again without all others
NAN = float("nan")

# what people, spreadsheets, other programs and attackers put where a number or a name belongs
WORDS = [
    b"",
    b"nan",
    b"NaN",
    b"inf",
    b"-Infinity",
    b"1e999",
    b"1" + b"0" * 400,
    b"9" * 5000,
    b"-0",
    b"0x10",
    b"1_000",
    b"1,5",
    b"1;5",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b'"',
    b"''",
    b"[" * 5000,
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r",
    b"\r\n",
    b"\x85",
    "\u2028".encode(),
    "\u0663".encode(),
    "größer".encode("latin-1"),
    b"\\ud800",
    b"../../up",
    b"/etc/passwd",
    b"C:\\up",
    b"#",
    b"# columns = label,x,y,z",
    b"# coordinate_system=MNI",
    b'# pairs=[["a"]]',
    b"=cmd|' /C calc'!A0",
    b"x" * 200_000,
]

VALUES = [
    None,
    True,
    0,
    -1,
    1.5,
    NAN,
    -np.inf,
    10**400,
    "",
    "a",
    "1",
    "../../up",
    "\ud800",
    "x\x00y",
    [],
    [[]],
    [None],
    ["a", "a"],
    [1, 2],
    [1, 2, 3],
    [True, 1, 2],
    {},
    {"a": 1},
    {"label": "a"},
    {"": [1, 2, 3]},
]


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """A good file of every format and form, as bytes by its name; and an image."""
    folder = tmp_path_factory.mktemp("seeds")
    image = folder / "image.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((12, 14, 16), np.uint8), np.diag([-2, 1.5, 3, 1])), image)
    sure = {"covariances": [np.eye(3)] * 2, "regions": [2 * np.eye(3)] * 2, "coverage": 0.9}
    world = LandmarkSet(
        ("a", "left, b"), [[1.5, -2, 3], [NAN] * 3], "LPS", (("a", "left, b"),), None, [0.5, NAN], **sure
    )
    index = LandmarkSet(("a", "b"), [[3, 4, 5], [9, 9, 9]], "index", image="1.png")
    for name in ("a.csv", "a.mrk.json", "a.fcsv", "a.npz"):
        write_landmarks(folder / name, world)
    for form in ("long", "wide"):
        write_landmark_table(folder / f"{form}.csv", {"1.png": index, "2.png": index}, form)
    write_landmarks(folder / "cubes.nii.gz", index, format="nnlandmark", image=image)
    np.save(folder / "a_label.npy", index.points)
    (folder / "cubes.nii").write_bytes(gzip.decompress((folder / "cubes.nii.gz").read_bytes()))
    files = [path for path in folder.iterdir() if path != image and path.name != "name_to_label.json"]
    files += [path for path in EXAMPLES.rglob("*.*") if path.name not in ("dataset.json", "spacing.json")]
    return {path.name: path.read_bytes() for path in sorted(files, key=lambda path: path.name)}, image


def damaged(data, random):
    """Bytes after one to three accidents."""
    for _ in range(random.randint(1, 4)):
        data = ACCIDENTS[random.randint(len(ACCIDENTS))](data, random)
    return data


def place(data, random):
    return random.randint(len(data) + 1)


def cut_short(data, random):
    return data[: place(data, random)]


def flip_bytes(data, random):
    result = bytearray(data)
    for _ in range(random.randint(1, 9) if data else 0):
        result[random.randint(len(data))] = random.randint(256)
    return bytes(result)


def put_word(data, random):
    i = place(data, random)
    return data[:i] + WORDS[random.randint(len(WORDS))] + data[i + random.randint(6) :]


def replace_token(data, random):
    """A number, a name or a bracket by something else."""
    tokens = [part for part in data.replace(b",", b" ").replace(b":", b" ").split() if part]
    if not tokens:
        return data
    return data.replace(tokens[random.randint(len(tokens))], WORDS[random.randint(len(WORDS))], random.randint(1, 3))


def repeat_line(data, random):
    lines = data.split(b"\n")
    i = random.randint(len(lines))
    return b"\n".join(lines[: i + 1] + lines[i:])


def drop_line(data, random):
    lines = data.split(b"\n")
    i = random.randint(len(lines))
    return b"\n".join(lines[:i] + lines[i + 1 :])


def repeat_part(data, random):
    i, j = sorted((place(data, random), place(data, random)))
    return data[:j] + data[i:j] + data[j:]


def encode_otherwise(data, random):
    text = data.decode("utf-8", errors="replace")
    return text.encode(("utf-16", "utf-32", "utf-8-sig", "latin-1")[random.randint(4)], errors="replace")


def replace_value(data, random):
    """A value of a JSON file, whichever, by one of another kind."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return put_word(data, random)
    holders = [[content]]
    for holder in holders:
        values = holder.values() if isinstance(holder, dict) else holder
        holders += [value for value in values if isinstance(value, (dict, list))]
    holder = holders[random.randint(len(holders))]
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    if keys:
        holder[keys[random.randint(len(keys))]] = VALUES[random.randint(len(VALUES))]
    return json.dumps(holders[0][0]).encode()


def damage_inside(data, random):
    """What is packed is damaged before it is packed, or nothing but the packing would ever be read."""
    if data[:2] == b"PK":
        return damage_member(data, random)
    if data[:2] != b"\x1f\x8b":
        return put_word(data, random)
    try:
        return gzip.compress(flip_bytes(gzip.decompress(data), random), 1)
    except (OSError, EOFError, gzip.zlib.error):
        return data


def damage_member(data, random):
    """One of the files in an archive."""
    result = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(result, "w") as new:
            chosen = random.randint(len(old.namelist()))
            for i, name in enumerate(old.namelist()):
                accident = (flip_bytes, put_word, cut_short)[random.randint(3)] if i == chosen else lambda part, _: part
                new.writestr(name, accident(old.read(name), random))
    except Exception:  # damaged before
        return data
    return result.getvalue()


ACCIDENTS = (
    cut_short,
    flip_bytes,
    put_word,
    replace_token,
    repeat_line,
    drop_line,
    repeat_part,
    encode_otherwise,
    replace_value,
    damage_inside,
)


@pytest.mark.parametrize("group", range(GROUPS))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of sums that are too large
def test_damaged_files(tmp_path, seeds, group):
    contents, image = seeds
    names = list(contents)
    source = tmp_path / "in"
    source.mkdir()
    for number in range(group, INPUTS, GROUPS):
        random = np.random.RandomState(number)
        name = names[number // GROUPS % len(names)]
        path = source / name
        path.write_bytes(damaged(contents[name], random))
        format = "nnlandmark" if ".nii" in name else None
        target = ("csv", "coco", "labelme", "mrk.json", "elastix", "nnlandmark.json")[random.randint(6)]
        try:
            check_reading(path, format, image)
            check_conversion(path, format, image, tmp_path / "out", target)
        except Exception as error:
            raise AssertionError(f"input {number}, {name}: {type(error).__name__}: {error}") from error
        path.unlink()
    assert [file.name for file in source.iterdir()] == []


def check_reading(path, format, image):
    try:
        sets = read_landmark_sets(path, format=format, image=image)
    except ValueError as error:
        assert str(path) in str(error) and len(str(error)) < 2000
        return
    for landmarks in sets.values():
        assert isinstance(landmarks, LandmarkSet) and len(set(landmarks.names)) == len(landmarks)
        assert not np.isinf(landmarks.points).any()


def check_conversion(path, format, image, out, target):
    """What is written can be read, and is all that is there."""
    result = convert_landmarks(path, out, format, target, images=image)
    assert result.written or result.faults
    there = {file for file in out.rglob("*") if file.is_file()} if out.exists() else set()
    assert {file.path for file in result.written} == there
    for file in there:
        assert out in file.resolve().parents
        read_landmark_sets(file, format=target)
        file.unlink()
    assert {file for file in out.parent.rglob("*") if file.is_file()} == {path}
