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

"""Copies of public benchmarks, made small in their official layouts, and what is missing in them."""

from __future__ import annotations

import dataclasses
import json

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from monai_landmarks.apps.main import program
from monai_landmarks.data import PUBLIC_DATASETS, check_public_dataset, landmark_formats, read_landmarks
from monai_landmarks.data.datasets.verse.centroids import VERSE_LANDMARKS


def text(path, content=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def picture(path, size=(40, 400)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size).save(path)


def volume(path, shape=(8, 9, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4)), path)


def make_isbi2015(root):
    for folder, number in (("TrainingData", 1), ("Test1Data", 151), ("Test2Data", 301)):
        picture(root / "RawImage" / folder / f"{number:03d}.bmp")
        for doctor in ("senior", "junior"):
            text(root / "AnnotationsByMD" / f"400_{doctor}" / f"{number:03d}.txt", "10,20\n" * 19 + "1\n" * 8)


def make_hand(root):
    points = ",".join(str(number) for number in range(74))
    text(root / "setup" / "all.csv", "\n".join(f"{image},{points}" for image in (3142, 3143)))
    for image in (3142, 3143):
        picture(root / "images" / f"{image}.jpg")
    for fold in (1, 2, 3):
        text(root / "setup" / "cv" / f"set{fold}" / "train.txt", "3142\n")
        text(root / "setup" / "cv" / f"set{fold}" / "test.txt", "3143\n")


def make_aasce(root):
    x, y = np.tile([0.2, 0.8], 34), np.repeat(np.linspace(0.05, 0.95, 34), 2)
    for part in ("training", "test"):
        labels = root / "boostnet_labeldata" / "labels" / part
        text(labels / "filenames.csv", f"{part}-01-Jan-2017-1 A.jpg\n")
        text(labels / "landmarks.csv", ",".join(f"{value:.4f}" for value in (*x, *y)) + "\n")
        text(labels / "angles.csv", "20,10,5\n")
        picture(root / "boostnet_labeldata" / "data" / part / f"{part}-01-Jan-2017-1 A.jpg")


def make_afids(root):
    rows = "".join(f"p{number},{number},2,3,0,0,0,1,1,1,0,{number},,\n" for number in range(1, 33))
    for collection in ("AFIDs-HCP", "AFIDs-OASIS", "LHSCPD", "SNSX"):
        base = root / "data" / "datasets" / collection
        volume(base / "sub-1" / "anat" / "sub-1_T1w.nii.gz")
        text(
            base / "derivatives" / "afids_groundtruth" / "sub-1" / "anat" / "sub-1_afids.fcsv",
            f"# Markups fiducial file version = 4.10\n# CoordinateSystem = 0\n{rows}",
        )


def make_verse(root):
    for part in PUBLIC_DATASETS["verse"].parts:
        base = root / f"dataset-{part}"
        volume(base / "rawdata" / "sub-verse1" / "sub-verse1_ct.nii.gz")
        entries = [{"direction": ["R", "A", "S"]}, {"label": 20, "X": 1, "Y": 2, "Z": 3}]
        text(base / "derivatives" / "sub-verse1" / "sub-verse1_seg-subreg_ctd.json", json.dumps(entries))


def make_mml(root):
    points = np.arange(42.0).reshape(14, 3)
    points[3] = -1  # an absent molar
    for part in ("train", "val", "test"):
        folder = root / "mmld_dataset" / part
        text(folder / "7_volume.nrrd")
        np.save(folder / "7_label.npy", points)
        np.save(folder / "7_spacing.npy", np.ones(3))


MAKERS = {
    "isbi2015": make_isbi2015,
    "hand": make_hand,
    "aasce": make_aasce,
    "afids": make_afids,
    "verse": make_verse,
    "mml": make_mml,
}


@pytest.fixture
def small(monkeypatch):
    """Benchmarks of one image in each part."""
    for name, dataset in PUBLIC_DATASETS.items():
        parts = {part: (2,) if part == "all.csv" else (1,) for part in dataset.parts}
        monkeypatch.setitem(PUBLIC_DATASETS, name, dataclasses.replace(dataset, parts=parts))


def test_every_benchmark_is_made_here():
    assert list(MAKERS) == list(PUBLIC_DATASETS)


@pytest.mark.parametrize("name", MAKERS)
def test_a_complete_copy(name, tmp_path, small):
    MAKERS[name](tmp_path / "copy")
    result = check_public_dataset(name, tmp_path / "copy")
    assert (result.faults, result.notes) == ((), ())
    assert [part.name for part in result.parts] == list(PUBLIC_DATASETS[name].parts)
    assert all(part.images == part.annotated == part.expected[0] for part in result.parts)


@pytest.mark.parametrize("name", MAKERS)
def test_a_copy_of_the_official_size_is_not_that_small(name, tmp_path):
    MAKERS[name](tmp_path)
    faults = check_public_dataset(name, tmp_path).faults
    assert len(faults) == len(PUBLIC_DATASETS[name].parts) and "images; the official part has" in faults[0]


@pytest.mark.parametrize("name", MAKERS)
def test_an_empty_folder(name, tmp_path, small):
    result = check_public_dataset(name, tmp_path)
    assert result.faults and all(part.images == part.annotated == 0 for part in result.parts)


# what is taken away or written into a copy, and the one fault that it makes
SPOILED = [
    ("isbi2015", "AnnotationsByMD/400_junior/151.txt", None, r"151\.txt: no such annotation file"),
    ("isbi2015", "AnnotationsByMD/400_senior/151.txt", "1,2\n", r"151\.txt: "),
    ("isbi2015", "RawImage/Test2Data/301.bmp", None, "Test2Data: no image in it"),
    ("hand", "images/3142.jpg", None, "all.csv: 1 images; the official part has 2"),
    ("hand", "setup/cv/set2/test.txt", None, "no list set2/test.txt"),
    ("hand", "setup/cv/set2/test.txt", "3144\n", "image '3144' is not in all.csv"),
    ("hand", "setup/all.csv", "3142,1,2,3,4,5,6,7,8\n3143,1,2,3,4,5,6,7,8\n", "3142: 4 landmarks; expected 37"),
    ("hand", "setup/all.csv", None, "no file all.csv"),
    ("hand", "setup/all.csv", "3142,1,2\n3143,1\n", r"all\.csv: line 2"),
    ("aasce", "boostnet_labeldata/labels/test/landmarks.csv", "0.5\n", r"landmarks\.csv: line 1"),
    ("aasce", "boostnet_labeldata/data/test/test-01-Jan-2017-1 A.jpg", None, "no such image"),
    ("aasce", "boostnet_labeldata/data/test/test-01-Jan-2017-1 A.jpg", "text", "jpg: the image cannot be read"),
    ("afids", "data/datasets/SNSX/sub-1/anat/sub-1_T1w.nii.gz", None, "there is no image of these landmarks"),
    ("afids", "data/datasets/SNSX/sub-1/anat/sub-1_T1w.nii.gz", "", "the image .* cannot be read"),
    ("afids", "data/datasets/SNSX/derivatives/afids_groundtruth/sub-1/anat/sub-1_afids.fcsv", "a,b", r"afids\.fcsv: "),
    ("verse", "dataset-verse19test/derivatives/sub-verse1/sub-verse1_seg-subreg_ctd.json", None, "no centroids"),
    ("verse", "dataset-verse19test/derivatives/sub-verse1/sub-verse1_seg-subreg_ctd.json", "[", r"ctd\.json: "),
    ("verse", "dataset-verse20test/rawdata/sub-verse1/sub-verse1_ct.nii.gz", None, "verse20test: 0 images"),
    ("mml", "mmld_dataset/val/7_label.npy", None, "no landmarks 7_label.npy"),
    ("mml", "mmld_dataset/val/7_label.npy", "points", "the array cannot be read"),
    ("mml", "mmld_dataset/val/7_spacing.npy", None, "no 7_spacing.npy"),
    ("mml", "mmld_dataset/val/7_volume.nrrd", None, "val: 0 images"),
]


@pytest.mark.parametrize("name, file, content, message", SPOILED)
def test_a_copy_with_a_fault(name, file, content, message, tmp_path, small):
    MAKERS[name](tmp_path)
    path = tmp_path / file
    assert path.is_file()
    path.unlink()
    if content is not None:
        path.write_text(content)
    faults = check_public_dataset(name, tmp_path).faults
    assert faults
    with pytest.raises(ValueError, match=message):
        raise ValueError(faults[0])


def test_an_image_that_was_not_fetched(tmp_path, small):
    make_afids(tmp_path)
    image = tmp_path / "data" / "datasets" / "SNSX" / "sub-1" / "anat" / "sub-1_T1w.nii.gz"
    image.unlink()
    image.symlink_to(tmp_path / "annex")
    faults = check_public_dataset("afids", tmp_path).faults
    assert f"{image}: no such image, but there are landmarks sub-1_afids.fcsv." in faults


def test_what_is_no_fault_is_a_note(tmp_path, small):
    make_afids(tmp_path / "afids")
    make_afids(tmp_path / "more")
    (tmp_path / "more" / "data" / "datasets" / "SNSX").rename(tmp_path / "afids" / "data" / "datasets" / "mine")
    path = tmp_path / "afids/data/datasets/LHSCPD/derivatives/afids_groundtruth/sub-1/anat/sub-1_afids.fcsv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    result = check_public_dataset("afids", tmp_path / "afids")
    assert result.faults == ()
    assert result.notes == (f"{path}: 31 of 32 landmarks.", "mine: no official part has this name.")


@pytest.mark.parametrize(
    "name, part, other",
    [
        ("verse", "dataset-verse20validation", "dataset-02validation"),
        ("afids", "data/datasets/SNSX", "data/datasets/ds004470"),
    ],
)
def test_parts_by_their_other_names(name, part, other, tmp_path, small):
    MAKERS[name](tmp_path)
    (tmp_path / part).rename(tmp_path / other)
    result = check_public_dataset(name, tmp_path)
    assert (result.faults, result.notes) == ((), ())


def test_absent_molars_are_missing(tmp_path):
    make_mml(tmp_path)
    landmarks = read_landmarks(tmp_path / "mmld_dataset" / "train" / "7_label.npy")
    assert landmarks.missing.nonzero()[0].tolist() == [3] and str(landmarks.coordinate_system) == "index"
    assert landmarks.points[13].tolist() == [39, 40, 41] and landmarks.names[13] == "14"


def test_facts_are_consistent():
    numbers = {"isbi2015": 400, "aasce": 609, "afids": 132, "mml": 658}
    for name, number in numbers.items():
        assert sum(count for [count] in PUBLIC_DATASETS[name].parts.values()) == number
        assert str(number) in PUBLIC_DATASETS[name].images
    verse = PUBLIC_DATASETS["verse"].parts
    assert sum(map(min, verse.values())) + 80 - 73 == 374 and PUBLIC_DATASETS["verse"].landmarks == len(VERSE_LANDMARKS)
    hand = PUBLIC_DATASETS["hand"].parts
    for fold in "123":
        assert hand[f"set{fold} train"][0] + hand[f"set{fold} test"][0] == 895
    for dataset in PUBLIC_DATASETS.values():  # the formats that they name are there
        words = dataset.read_by.replace(";", " ").split()
        named = [after for before, after in zip(words, words[1:]) if before == "format"]
        assert named and set(named) <= set(landmark_formats())


def run(*arguments):
    return CliRunner().invoke(program, ["datasets", *map(str, arguments)])


def test_the_command(tmp_path, small):
    listed = run()
    assert listed.exit_code == 0
    for dataset in PUBLIC_DATASETS.values():
        assert f"{dataset.name}: {dataset.title}" in listed.stdout
        words = " ".join(listed.stdout.split())
        for field in (dataset.licence, *dataset.citation, *dataset.sources, dataset.layout):
            assert field in words
    make_verse(tmp_path)
    done = run("check", "verse", tmp_path)
    assert (done.exit_code, done.stderr) == (0, "") and "verse20test" in done.stdout
    (tmp_path / "dataset-verse20test" / "rawdata" / "sub-verse1" / "sub-verse1_ct.nii.gz").unlink()
    done = run("check", "verse", tmp_path)
    assert done.exit_code == 1 and "verse20test: 0 images; the official part has 1." in done.stderr
    with pytest.raises(ValueError, match="absent: no such folder"):
        check_public_dataset("verse", tmp_path / "absent")
    done = run("check", "imagenet", tmp_path)
    assert done.exit_code == 1 and "dataset 'imagenet' is unknown; expected one of isbi2015" in done.stderr


def test_the_tables_of_a_reduced_copy(isbi2015_root):
    result = check_public_dataset("isbi2015", isbi2015_root)
    counts = {part.name: part.annotated for part in result.parts}
    assert counts["training"] == counts["testing"] == 150
