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

"""The conventions of CONTRIBUTING.md that a program can check."""

from __future__ import annotations

import ast
import configparser
import importlib
import pkgutil
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import monai_landmarks

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "monai_landmarks"
CODE_FOLDERS = ("monai_landmarks", "bundles", "tests", "notebooks", "benchmarks", "tools")
# the licence header, as this file has it
HEADER = Path(__file__).read_text().partition("\n\n")[0]
# installed name of a requirement, where the import has another
IMPORT_NAMES = {"pytorch-ignite": "ignite", "pillow": "PIL", "pyyaml": "yaml", "simpleitk": "SimpleITK"}


def python_files(*folders):
    # a bundle's eval/ and models/ are made by running it
    return sorted(
        p for folder in folders for p in (ROOT / folder).rglob("*.py") if not {"eval", "models"} & set(p.parts)
    )


def relative(path):
    return str(path.relative_to(ROOT))


@cache
def imported_modules(path):
    """Full names of what a file imports, wherever in the file it does so."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join((*base, node.module) if node.module else base)
            names += [f"{module}.{alias.name}" for alias in node.names]
    return names


def optional_imports(path):
    """Names of packages that a file imports only if they are there, or at their first use."""
    functions = ("optional_import", "lazy_import", "optional_base")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) in functions:
            yield from (arg.value.partition(".")[0] for arg in node.args[:1] if isinstance(arg, ast.Constant))


def layers(inside=""):
    """Folder to the folders it may import from: the tables under "Layers" in CONTRIBUTING.md.

    Args:
        inside: a folder of the package that is itself divided, such as ``data``.
    """
    row = rf"^\| `{inside and inside + '/'}(\w+)/` \|.*\| ([^|]+) \|$"
    rows = re.findall(row, (ROOT / "CONTRIBUTING.md").read_text(), flags=re.MULTILINE)
    return {folder: set(re.findall(r"`(\w+)`", may)) for folder, may in rows}


def folder_of(path, inside=""):
    parts = path.relative_to(PACKAGE / inside).parts
    return parts[0] if len(parts) > 1 else ""


@cache
def setup_cfg():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


@cache
def requirements(section, key):
    return [Requirement(line) for line in setup_cfg()[section][key].split("\n") if line.strip()]


def import_names(reqs):
    names = (canonicalize_name(r.name) for r in reqs)
    return {IMPORT_NAMES.get(name, name) for name in names}


DIVIDED = ["", "data"]  # the package, and the folders in it that have layers of their own


@pytest.mark.parametrize("inside", DIVIDED)
def test_layers_table_names_every_folder(inside):
    files = python_files(f"monai_landmarks/{inside}")
    assert set(layers(inside)) == {folder_of(p, inside) for p in files} - {""}


@pytest.mark.parametrize("inside", DIVIDED)
def test_layers_have_no_circle(inside):
    table = layers(inside)
    while table:
        ground = {folder for folder, may in table.items() if not may & set(table)}
        assert ground, f"these folders import each other in a circle: {sorted(table)}"
        table = {folder: may for folder, may in table.items() if folder not in ground}


@pytest.mark.parametrize("inside", DIVIDED)
def test_imports_run_downward(inside):
    table = layers(inside)
    prefix = ".".join(["monai_landmarks", *filter(None, [inside])])
    upward = []
    for path in python_files(f"monai_landmarks/{inside}"):
        folder = folder_of(path, inside)
        if path == PACKAGE / "__main__.py":  # the program itself is the top layer
            continue
        allowed = table[folder] | {folder} if folder else set(table) if inside else set()
        for module in imported_modules(path):
            name = module.removeprefix(f"{prefix}.").partition(".")[0] if module.startswith(f"{prefix}.") else ""
            if name in table and name not in allowed:
                upward.append(
                    f"{relative(path)} imports {module}; {folder or inside or 'the top'} may use {sorted(allowed)}"
                )
            # what a divided folder exports comes from all of its layers
            elif inside and folder and module.rpartition(".")[0] == prefix and name not in table:
                upward.append(f"{relative(path)} imports {module} from {prefix} itself; import it from its own folder")
    assert upward == []


@pytest.mark.parametrize("path", python_files(*CODE_FOLDERS), ids=relative)
def test_license_header(path):
    text = path.read_text()
    if path.parent.name == "notebooks":  # there the title comes first, as in MONAI's tutorials
        assert HEADER in text[:1000]
    else:
        assert text.startswith(HEADER + "\n")


def test_subpackages_are_listed():
    folders = {p.parent for p in python_files("monai_landmarks")}
    assert [f for f in folders if not (f / "__init__.py").is_file()] == []
    listed = setup_cfg()["options"]["packages"].split()
    assert listed == sorted({".".join(f.relative_to(ROOT).parts) for f in folders} | {"monai_landmarks.bundles"})


def test_requirements_are_pinned_within_their_bounds():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    tested = {canonicalize_name(r.name): next(iter(r.specifier)).version for r in pins}
    needed = [*requirements("options", "install_requires")]
    for extra in setup_cfg()["options.extras_require"]:
        needed += requirements("options.extras_require", extra)
    for requirement in needed:
        if requirement.name != "monai_landmarks":
            version = tested[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), f"{requirement} does not allow the tested {version}"


@pytest.mark.parametrize("path", python_files("monai_landmarks"), ids=relative)
def test_third_party_imports_are_declared(path):
    required = import_names(requirements("options", "install_requires"))
    extras = [e for e in setup_cfg()["options.extras_require"] if e not in ("test", "dev")]
    optional = import_names(r for e in extras for r in requirements("options.extras_require", e))
    lines = (ROOT / "label-requirements.txt").read_text().splitlines()  # installed without what it asks for
    optional |= import_names(Requirement(line) for line in lines if line and not line.startswith("#"))
    imported = (
        {module.partition(".")[0] for module in imported_modules(path)} - sys.stdlib_module_names - {"monai_landmarks"}
    )
    assert imported <= required, "an import of a package that is not in install_requires"
    assert set(optional_imports(path)) <= required | optional, "an optional import of a package that no extra names"


def test_nothing_outside_the_tests_names_the_shared_folder():
    files = [p for p in ROOT.iterdir() if p.is_file()]
    for folder in ("monai_landmarks", "bundles", "notebooks", "benchmarks", ".ci"):
        files += [p for p in (ROOT / folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    named = [relative(p) for p in files if p.stat().st_size < 1_000_000 and b"../shared" in p.read_bytes()]
    assert named == []


def test_version_is_defined_once():
    defined = [p for p in python_files(*CODE_FOLDERS) if re.search(r"^__version__ =", p.read_text(), re.MULTILINE)]
    assert defined == [PACKAGE / "__init__.py"]
    assert setup_cfg()["metadata"]["version"] == "attr: monai_landmarks.__version__"
    assert f"\n## {monai_landmarks.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def all_modules():
    modules = (m.name for m in pkgutil.walk_packages([str(PACKAGE)], "monai_landmarks."))
    return sorted(name for name in modules if not name.endswith(".__main__"))  # those are run, not imported


@pytest.mark.parametrize("name", all_modules())
def test_all_names_exist(name):
    module = importlib.import_module(name)
    is_package = hasattr(module, "__path__")
    exported = getattr(module, "__all__", [])
    assert exported or is_package, f"{name} has no __all__"
    assert [n for n in exported if not hasattr(module, n)] == []


def test_imports_without_optional_packages():
    """MONAI's own habit: what only some users need must not be needed to import the package."""
    blocked = ["ignite", "matplotlib", "itk", "SimpleITK", "pandas", "scipy", "skimage", "pydicom"]
    blocked += ["mlflow", "tensorboard", "onnx", "onnxruntime", "jsonschema", "fire", "yaml"]
    program = f"""
import importlib, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
for name in {["monai_landmarks", *all_modules()]}:
    importlib.import_module(name)
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_unknown_bundle_is_refused():
    with pytest.raises(ValueError, match="has no bundle 'hand'"):
        monai_landmarks.bundle_path("hand")
