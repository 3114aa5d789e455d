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
"""``monai-landmarks init``: what it says, what can be given, and what it refuses."""

from __future__ import annotations

import ast
import json
import shlex
import subprocess

import pytest
from click.testing import CliRunner

from monai_landmarks.apps.init import _quoted_list
from monai_landmarks.apps.main import program
from monai_landmarks.data import write_hand_phantom, write_spine_phantom

QUICK = ("--set", "width=4")


def init(*args):
    return CliRunner().invoke(program, ["init", *map(str, args)])


@pytest.fixture(scope="module")
def datalist(tmp_path_factory):
    return write_hand_phantom(tmp_path_factory.mktemp("hand"), 6, size=(48, 64), val_frac=0.34)


@pytest.mark.parametrize(
    "dims, device, method, title",
    [(2, "cpu", "scn", "SCN"), (2, "cuda", "scn", "SCN"), (3, "cpu", "unet", "U-Net"), (3, "cuda", "scn", "SCN")],
)
def test_the_method_is_chosen_and_said(datalist, tmp_path, dims, device, method, title):
    """A network that sees whole volumes trains in an hour on a CPU, and one that sees patches in many."""
    if dims == 3:
        datalist = write_spine_phantom(
            tmp_path / "spine", 2, size=(24, 24, 40), spacing=(6, 6, 5), val_frac=0.5, test_frac=0
        )
    quick = ("--memory", "8", "--set", "width=4", "--device", device)
    result = init(datalist, "--out", tmp_path / "b", *quick)
    assert result.exit_code == 0, result.output
    assert f"method       {title} ({method})" in result.stdout.splitlines()
    train = json.loads((tmp_path / "b" / "configs" / "train.json").read_text())
    assert train["network_def"]["_target_"].endswith({"scn": ".SCN", "unet": ".LocalizationUNet"}[method])


def test_every_choice_is_printed_with_its_reason(datalist, tmp_path):
    settings = ("--set", "batch_size=2", "--set", "modality=CT")
    folder = tmp_path / "a bundle"
    result = init(datalist, "--out", folder, "--device", "cpu", *settings, *QUICK)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    table = lines[next(i for i, line in enumerate(lines) if line.startswith("setting")) + 1 :]
    table = table[: table.index("")]
    page = (folder / "docs" / "README.md").read_text()
    for name in (
        "modality",
        "spatial_size",
        "spacing_mm",
        "batch_size",
        "sigma_mm",
        "spatial_factor",
        "flip",
        "intensity",
    ):
        [row] = [row for row in table if row.split()[0] == name]
        assert len(row.split()) > 2 and row.split("  ")[-1].strip() in page
    assert "[64, 64]" in result.stdout and "given" in next(row for row in table if row.startswith("batch_size"))
    assert next(row for row in table if row.startswith("modality")).split() == ["modality", "CT", "given"]
    # the commands that go on, without and with the close look, also in a folder whose name has a space
    alone, both = (shlex.split(line) for line in lines if line.startswith("python -m monai.bundle run training "))
    command = "python -m monai.bundle run training --bundle_root".split()
    files = [str(folder / "configs" / f"{name}.json") for name in ("train", "close_look")]
    assert alone == [*command, str(folder), "--config_file", files[0]]
    assert both[:-1] == alone[:-1] and ast.literal_eval(both[-1]) == files
    [line] = [line for line in lines if "close_look.json" in line and line.startswith("python")]
    assert line.endswith(f"""--config_file "['{files[0]}','{files[1]}']\"""")
    assert f"B='{folder}'\n" in page
    train = json.loads((folder / "configs" / "train.json").read_text())
    assert train["batch_size"] == 2 and train["datalist"] == str(datalist)


@pytest.mark.parametrize("paths", [["a b/c.json", "d.json"], ["Ann's/$x`y`.json", 'a"b\\.json'], ["a!b.json"]])
def test_a_list_of_paths_is_one_argument_of_a_shell(paths):
    [text] = shlex.split(_quoted_list(paths))
    assert ast.literal_eval(text) == paths
    shell = subprocess.run(
        ["bash", "-c", f"printf %s {_quoted_list(paths)}"], capture_output=True, text=True, check=True
    )
    assert ast.literal_eval(shell.stdout) == paths


def test_pairs_and_schema(datalist, tmp_path):
    (tmp_path / "pairs.csv").write_text("left,right\nradius_styloid,ulna_styloid\n")
    result = init(datalist, "--out", tmp_path / "a", "--pairs", tmp_path / "pairs.csv", "--schema", "hand_37", *QUICK)
    assert result.exit_code == 0, result.output
    assert "1 left-right pairs" in result.stdout
    assert init(datalist, "--out", tmp_path / "b", "--symmetric", *QUICK).exit_code == 0
    flips = [json.loads((tmp_path / name / "configs/train.json").read_text())["augmentation"][0] for name in "ab"]
    assert [flip["_target_"].rsplit(".", 1)[1] for flip in flips] == ["RandLandmarkFlipd"] * 2
    assert [len(flip["pairs"]) for flip in flips] == [1, 0]
    # whose measurements predict makes
    metadata = [json.loads((tmp_path / name / "configs/metadata.json").read_text()) for name in "ab"]
    assert [content.get("landmark_schema") for content in metadata] == ["hand_37", None]


def test_wrong_usage(datalist, tmp_path):
    out = ["--out", tmp_path / "b"]
    for arguments, code, message in (
        ([datalist], 2, "Missing option '--out'"),
        ([datalist, *out, "--set", "batch_size"], 2, "is not a setting; expected NAME=VALUE, for example batch_size=2"),
        ([datalist, *out, "--set", "batches=2", *QUICK], 1, "unknown setting 'batches'; expected one of modality"),
        ([datalist, *out, "--schema", "cephalometric_19"], 1, "lacks the landmark"),
        ([datalist, *out, "--schema", "hands"], 1, "hand_37"),
        ([datalist.parent / "landmarks.csv", *out], 1, "landmarks.csv"),
    ):
        result = init(*arguments)
        assert result.exit_code == code and message in result.stderr, result.output
        assert "Traceback" not in result.stderr and not (tmp_path / "b").exists()
