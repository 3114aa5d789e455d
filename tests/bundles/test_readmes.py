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

"""The commands in the READMEs of the bundles name files and settings that exist."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_bundles import BUNDLES, SOURCE

from monai_landmarks.apps.main import program

# options of "monai.bundle run" itself
OWN = {"config_file", "tracking"}
# options of other programs: torchrun, "monai.bundle ckpt_export", the benchmarks, and "monai-landmarks"
OTHERS = {"standalone", "nproc_per_node", "filepath", "ckpt_file", "meta_file", "threads", "quick", "bundle"}
OTHERS |= {
    option.lstrip("-") for command in program.commands.values() for item in command.params for option in item.opts
}


def commands(page: str) -> Iterator[list[str]]:
    """The words of each command, in blocks and in the text, that runs a bundle; variables of the shell are replaced."""
    for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) + re.findall(
        r"`([^`\n]*monai\.bundle run[^`\n]*)`", page
    ):
        variables = {name: value for name, value in re.findall(r"^([A-Z])=(.*)$", block, re.MULTILINE)}
        for line in block.replace("\\\n", " ").splitlines():
            if "monai.bundle run" in line and "$files" not in line:
                for name, value in variables.items():
                    line = line.replace(f"${name}", value.strip("'"))
                yield [word for word in shlex.split(line.replace("$B", "bundles")) if word != "&"]


def options(words: list[str]) -> dict[str, str]:
    return {word[2:]: value for word, value in zip(words, words[1:]) if word.startswith("--")}


def read(bundle: str, name: str) -> dict[str, Any]:
    return json.loads((SOURCE / bundle / "configs" / name).read_text())


def merged(files: list[Path]) -> dict[str, Any]:
    """Configurations read one after another, with keys such as ``a#b`` put into place."""
    config: dict[str, Any] = {}
    for file in files:
        for key, value in json.loads(file.read_text()).items():
            *parents, last = key.lstrip("+").split("#")
            place = config
            for parent in parents:
                place = place[parent]
            if not key.startswith("+"):
                place[last] = value
    return config


@pytest.mark.parametrize("bundle", BUNDLES)
def test_commands(bundle: str) -> None:
    page = (SOURCE / bundle / "docs" / "README.md").read_text(encoding="utf-8")
    found = list(commands(page))
    assert len(found) >= 3
    for words in found:
        what = words[words.index("run") + 1]
        given = options(words[words.index("run") :])
        names = re.findall(r"[\w/$]+/configs/(\w+)\.json", given["config_file"])
        config = merged([SOURCE / bundle / "configs" / f"{name}.json" for name in names])
        assert what in config, f"{what} in {words}"
        for key in given.keys() - OWN:
            place = config
            for part in key.split("#"):
                # options of a class need not be in the configuration
                assert part in place or "_target_" in place, f"--{key} in {words}"
                place = place.get(part, {})


@pytest.mark.parametrize("bundle", BUNDLES)
def test_files_and_settings_in_the_text(bundle: str) -> None:
    """Names of configurations, options and linked files."""
    page = (SOURCE / bundle / "docs" / "README.md").read_text(encoding="utf-8")
    configs = {path.name for path in (SOURCE / bundle / "configs").iterdir()}
    for name in re.findall(r"`(\w+\.json)`|configs/(\w+\.json)", page):
        assert "".join(name) in configs, name
    known = {key.split("#")[0] for path in configs if path.endswith(".json") for key in read(bundle, path)}
    for option in re.findall(r"--(\w[\w-]*)", page):
        assert option in known | OWN | OTHERS, option
    for target in re.findall(r"\]\(([^)#]+)", page):
        assert (SOURCE / bundle / "docs" / target).exists(), target
