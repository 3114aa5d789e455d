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

"""The configurations of the bundles are what tools/build_bundle_configs.py writes, and its rules hold."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from small_bundles import BUNDLES, SOURCE

PROGRAM = SOURCE.parent / "tools" / "build_bundle_configs.py"


@pytest.fixture
def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_bundle_configs", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_files_are_what_is_written(builder: ModuleType) -> None:
    assert builder.bundle_names() == BUNDLES
    found = [str(path.relative_to(SOURCE)) for path in builder.differing_files()]
    assert not found, "run python tools/build_bundle_configs.py after an edit of tools/bundle_configs/"


@pytest.fixture
def copied(builder: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program with sources and bundles of its own."""
    shutil.copytree(builder.SOURCE, tmp_path / "tools" / "bundle_configs")
    shutil.copy(SOURCE.parent / "LICENSE", tmp_path)
    monkeypatch.setattr(builder, "SOURCE", tmp_path / "tools" / "bundle_configs")
    monkeypatch.setattr(builder, "BUNDLES", tmp_path / "bundles")
    monkeypatch.setattr("sys.argv", ["build_bundle_configs.py"])
    assert builder.main() == 0
    return tmp_path


def test_one_edit_changes_all_bundles(
    builder: ModuleType, copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those with an optimizer of their own keep it."""
    path = builder.SOURCE / "base" / "fragments.yaml"
    text = path.read_text()
    assert text.count("torch.optim.AdamW") == 1
    path.write_text(text.replace("torch.optim.AdamW", "torch.optim.RAdam"))
    monkeypatch.setattr("sys.argv", ["build_bundle_configs.py", "--check"])
    assert builder.main() == 1
    differing = capsys.readouterr().out.splitlines()
    others = [bundle for bundle in BUNDLES if not bundle.startswith("vertebrae")]
    assert [line.split(":")[0] for line in differing] == [f"bundles/{name}/configs/train.json" for name in others]
    builder.write_bundles()
    assert builder.main() == 0
    for name in others:
        config = json.loads((copied / "bundles" / name / "configs" / "train.json").read_text())
        assert config["optimizer"]["_target_"] == "torch.optim.RAdam"


def test_an_edit_of_what_is_written_is_found(builder: ModuleType, copied: Path) -> None:
    configs = copied / "bundles" / BUNDLES[0] / "configs"
    (configs / "own.json").write_text("{}")
    (configs / "train.json").write_text("{}")
    (configs / "logging.conf").unlink()
    names = ["train.json", "logging.conf", "own.json"]
    assert builder.differing_files() == [configs / name for name in names]


def test_rules(builder: ModuleType) -> None:
    fragments = {"steps[]": {"read": {"_target_": "Read"}, "crop": "omit"}, "net": {"_target_": "Net", "size": 1}}
    base = {
        "network": {"copy": "net"},
        "all[]": {"first": {"copy": "steps"}, "last": "@own"},
        "fixed": {"_target_": "A", "x": 1},
        "changed": {"_target_": "A", "x": 1},
        "place": "omit",
        "names{}": ["a", "b"],
    }
    own = {
        "network": {"copy": "net", "size": 2},
        "fixed": {"_target_": "B"},
        "changed": {"x": 2, "y": "omit"},
        "place": None,
        "new": [{"copy": "net", "size": "omit"}],
    }
    assert builder.finish(builder.merge(base, own), fragments) == {
        "network": {"_target_": "Net", "size": 2},
        "all": [{"_target_": "Read"}, "@own"],
        "fixed": {"_target_": "B"},
        "changed": {"_target_": "A", "x": 2},
        "place": None,
        "names": {"0": "a", "1": "b"},
        "new": [{"_target_": "Net"}],
    }
    changed = {"copy": "steps", "crop": "@crop"}
    assert builder.finish(changed, fragments) == [{"_target_": "Read"}, "@crop"]


def test_numbers_are_numbers(builder: ModuleType) -> None:
    """YAML takes 1e-6 for a text and 1.0e-6 for a number."""
    for path in builder.SOURCE.rglob("*.yaml"):
        for text in texts(yaml.load(path.read_text(), Loader=builder.LOADER)):
            assert not is_number(text), f"{path}: {text}"


def texts(content: Any) -> Iterator[str]:
    if isinstance(content, (dict, list)):
        for entry in content.values() if isinstance(content, dict) else content:
            yield from texts(entry)
    elif isinstance(content, str):
        yield content


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.lower() not in ("nan", "inf", "infinity")
