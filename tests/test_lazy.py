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

"""What is imported at its first use: names of packages, optional modules, and what each command needs."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_landmarks.apps.main import program
from monai_landmarks.data import LandmarkSet, write_landmark_table
from monai_landmarks.lazy import is_installed, lazy_import, optional_base

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "monai_landmarks"
LAZY = sorted(path for path in PACKAGE.rglob("__init__.py") if "lazy_names(" in path.read_text())

# What takes long to import, and what setup.cfg names. A command may import more than the one before it.
WATCHED = ["torch", "monai", "ignite", "numpy", "PIL", "tqdm", "nibabel", "matplotlib", "itk", "SimpleITK", "yaml"]
WATCHED += ["pandas", "scipy", "skimage", "torchvision", "fire", "filelock", "mlflow", "tensorboard", "onnx"]
NEED_TORCH = {
    "init",
    "label-app",
    "label-server",
    "predict",
    "study",
}  # to run a network, or to start a server that does
POINTS = {"numpy", "PIL"}
MAY_IMPORT = {
    "datasets": POINTS,
    "models": POINTS,
    "convert": POINTS,
    "evaluate": POINTS,
    "calibrate": POINTS,
    "check of pictures": POINTS | {"matplotlib", "tqdm"},
    "report": POINTS | {"matplotlib", "tqdm"},
    "agreement": POINTS | {"matplotlib", "tqdm"},
    "convert with a volume": POINTS | {"matplotlib", "tqdm", "nibabel", "scipy"},  # nibabel imports scipy
}


def declared(path):
    """Names that a package imports for type checkers, and names that it imports at their first use, by module."""
    for_types, at_use = {}, {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for line in node.body:
                for_types |= {alias.name: line.module for alias in line.names}
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "(__getattr__, __dir__)":
            at_use = ast.literal_eval(node.value.args[1])
    return for_types, at_use


@pytest.mark.parametrize("path", LAZY, ids=lambda path: path.parent.name)
def test_lazy_names_are_those_of_their_modules(path):
    for_types, at_use = declared(path)
    assert at_use and for_types == at_use
    package = importlib.import_module(".".join(path.parent.relative_to(ROOT).parts))
    for name, module in at_use.items():
        assert getattr(package, name) is getattr(importlib.import_module(f"{package.__name__}.{module}"), name)
    assert set(at_use) <= set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'nothing'"):
        _ = package.nothing


def test_a_module_is_imported_at_its_first_use(monkeypatch):
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    module = lazy_import("colorsys")
    assert is_installed("colorsys") and "colorsys" not in sys.modules
    assert module.rgb_to_hsv(1.0, 1.0, 1.0) == (0.0, 0.0, 1.0) and "colorsys" in sys.modules


def test_a_package_that_is_not_installed():
    absent = lazy_import("absent_package.part")
    for use in (lambda: absent.something, optional_base("absent_package", "C")):
        with pytest.raises(ImportError, match="the package absent_package is required for this, but is not installed"):
            use()
    assert not is_installed("absent_package")


def test_every_command_is_named():
    assert {name.partition(" ")[0] for name in MAY_IMPORT} | NEED_TORCH == set(program.commands)


@pytest.fixture
def commands(tmp_path):
    """Arguments of each command that needs no network, for six small pictures and a volume."""
    rng = np.random.default_rng(0)
    names = [f"{level}_{corner}" for level in ("upper", "lower") for corner in ("tl", "tr", "bl", "br")]
    shape = np.array([[10, 8], [30, 9], [10, 18], [30, 19], [11, 24], [29, 23], [11, 34], [29, 33]], dtype=float)
    measured = ["distance(upper_tl, lower_br)", "angle(upper_tl, upper_br, lower_bl)", "cobb(1)"]
    measurements = [
        {"name": f"m{i}", "expression": expression, "unit": unit}
        for i, (expression, unit) in enumerate(zip(measured, ("mm", "degree", "degree")))
    ]
    schema = {"name": "two_8", "spatial_dims": 2, "landmarks": [{"name": name} for name in names]}
    (tmp_path / "schema.json").write_text(json.dumps(schema | {"measurements": measurements}))
    tables = {"truth": {}, "found": {}, "other": {}}
    (tmp_path / "images").mkdir()
    for i in range(12):
        Image.fromarray(rng.integers(0, 255, (44, 40), dtype=np.uint8)).save(tmp_path / f"images/{i}.png")
        for table in tables.values():
            table[f"{i}.png"] = LandmarkSet(names, shape + rng.normal(0, 1, shape.shape), "index")
    for name, table in tables.items():
        write_landmark_table(tmp_path / f"{name}.csv", table)
    nib = pytest.importorskip("nibabel")
    nib.save(nib.Nifti1Image(np.zeros((5, 5, 5), np.uint8), np.diag([-2.0, -2, 2, 1])), tmp_path / "volume.nii.gz")
    (tmp_path / "volume.csv").write_text("landmark,x,y,z\na,1,2,3\n")
    evaluation = ["found.csv", "truth.csv", "--images", "images", "--spacing", "0.5", "--compare", "other.csv"]
    evaluation += ["--schema", "schema.json", "--resamples", "20"]
    return [
        ("datasets", ["datasets"]),
        ("models", ["models"]),
        ("convert", ["convert", "truth.csv", "labelme", "--to", "labelme", "--images", "images"]),
        ("convert", ["convert", "truth.csv", "world", "--to", "mrk.json", "--images", "images", "--spacing", "0.5"]),
        ("evaluate", ["evaluate", *evaluation, "--out", "tables"]),
        ("calibrate", ["calibrate", "found.csv", "truth.csv", "--spacing", "0.5", "--coverage", "0.8"]),
        ("check of pictures", ["check", "images", "truth.csv", "--spacing", "0.5"]),
        ("report", ["report", *evaluation, "--cases", "1"]),
        (
            "agreement",
            ["agreement", "truth.csv", "other.csv", "--images", "images", "--spacing", "0.5", "--cases", "1"]
            + ["--resamples", "20"],
        ),
        (
            "convert with a volume",
            ["convert", "volume.csv", "volume.mrk.json", "--images", "volume.nii.gz"]
            + ["--source-coordinate-system", "index"],
        ),
    ]


def test_what_each_command_imports(commands, tmp_path):
    """All in one new process, so that what one command imports counts for those after it, too."""
    code = """
import json, sys
from monai_landmarks.apps.main import program
loaded = []
for name, arguments in json.loads(sys.argv[1]):
    program(arguments, prog_name="monai-landmarks", standalone_mode=False)
    loaded.append([name, sorted({module.partition(".")[0] for module in sys.modules})])
print(json.dumps(loaded))
"""
    python = [sys.executable, "-c", code, json.dumps(commands)]
    result = subprocess.run(python, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    imported = {name: set(modules) & set(WATCHED) for name, modules in json.loads(result.stdout.splitlines()[-1])}
    assert imported.keys() == MAY_IMPORT.keys()
    assert {name: modules - MAY_IMPORT[name] for name, modules in imported.items() if modules - MAY_IMPORT[name]} == {}
    # the commands did their work
    assert len(list((tmp_path / "labelme").glob("*.json"))) == 12 and (tmp_path / "volume.mrk.json").is_file()
    assert (tmp_path / "tables/measurement_errors.csv").is_file() and (tmp_path / "checked/datalist.json").is_file()
    assert len(re.findall("data:image/png", (tmp_path / "report.html").read_text())) == 2
    assert (tmp_path / "agreement/consensus.csv").is_file()
