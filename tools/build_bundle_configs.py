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
"""Write the configurations of all bundles from what they have in common and what differs.

A bundle is a folder that must work alone, so it cannot share files with other bundles. Edit ``bundle_configs/`` instead
of ``bundles/*/configs/*.json``, and run this program. ``bundle_configs/`` contains:

* ``base/<config>.yaml``: the content of ``configs/<config>.json`` that all bundles share. Four files are special:
  ``common.yaml`` is added to train.json and inference.json, ``fragments.yaml`` holds pieces that are copied to other
  places, ``files.yaml`` lists files that are copied unchanged, and ``order.yaml`` is the order of the keys.
* ``parts/<part>.yaml``: what some bundles share.
* ``bundles/<bundle>.yaml``: the parts of a bundle, and what only this bundle has.

A part or a bundle is a mapping from the names of base files (``train``, ``common``, ``fragments``, ...) to what it
changes in them. A bundle is merged in the order base, parts, bundle. Other names, such as ``full``, are further
configurations.

* A mapping with a ``_target_`` replaces the previous value. Any other mapping changes only the keys it contains.
* ``omit`` removes a key, or a whole configuration. In the base, it marks the position of a key or an entry that only
  some bundles have.
* ``name[]`` is a list that is written as a mapping, so that its entries have names and can be changed one by one.
  An entry that is itself a list becomes several entries.
* ``name{}`` is a mapping from "0", "1", ... that is written as a list.
* ``{copy: name, ...}`` is a copy of the fragment ``name``. The other keys change the copy.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

__all__ = ["build_bundle", "bundle_names", "differing_files", "write_bundles"]

SOURCE = Path(__file__).parent / "bundle_configs"
BUNDLES = Path(__file__).parents[1] / "bundles"
OMIT = "omit"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the first one is faster, and not part of every build
NOT_WRITTEN = ("parts", "order", "fragments", "common", "files")


def bundle_names() -> list[str]:
    """Return the names of all bundles."""
    return sorted(path.stem for path in (SOURCE / "bundles").glob("*.yaml"))


def build_bundle(name: str) -> dict[str, str]:
    """Build the files of a bundle.

    Args:
        name: name of the bundle.

    Returns:
        The text of each file. The keys are the paths in the bundle's folder.
    """
    bundle = _read(SOURCE / "bundles" / f"{name}.yaml")
    content = {path.stem: _read(path) for path in (SOURCE / "base").glob("*.yaml")}
    for layer in (*(_read(SOURCE / "parts" / f"{part}.yaml") for part in bundle["parts"]), bundle):
        content = merge(content, layer)
    for config in ("train", "inference"):
        merged = merge(content["common"], content[config])
        content[config] = dict(sorted(merged.items(), key=lambda item: _position(item[0], content["order"])))
    texts = {}
    for config, entries in content.items():
        if config not in NOT_WRITTEN and entries != OMIT:
            finished = finish(entries, content["fragments"])
            texts[f"configs/{config}.json"] = json.dumps(finished, indent=4, ensure_ascii=False) + "\n"
    for path, source in content["files"].items():
        texts[path] = (SOURCE / source).read_text(encoding="utf-8")
    return texts


def merge(first: Any, second: Any) -> Any:
    """Merge ``second`` over ``first``, with the rules at the top of this file."""
    if not isinstance(first, dict) or not isinstance(second, dict) or "_target_" in second:
        return second
    return {**first, **{key: merge(first[key], value) if key in first else value for key, value in second.items()}}


def finish(value: Any, fragments: dict[str, Any]) -> Any:
    """Resolve ``copy``, ``omit``, ``name[]`` and ``name{}``, with the rules at the top of this file."""
    if isinstance(value, list):
        return [finish(entry, fragments) for entry in value]
    if not isinstance(value, dict):
        return value
    if "copy" in value:
        name, changes = value["copy"], {key: entry for key, entry in value.items() if key != "copy"}
        if f"{name}[]" in fragments:
            return finish({"[]": merge(fragments[f"{name}[]"], changes)}, fragments)[""]
        return finish(merge(fragments[name], changes), fragments)
    result: dict[str, Any] = {}
    for key, entry in value.items():
        if isinstance(entry, str) and entry == OMIT:
            continue
        finished = finish(entry, fragments)
        if key.endswith("[]"):
            entries = ([entry] if not isinstance(entry, list) else entry for entry in finished.values())
            result[key[:-2]] = [part for entry in entries for part in entry]
        elif key.endswith("{}"):
            result[key[:-2]] = {str(number): entry for number, entry in enumerate(finished)}
        else:
            result[key] = finished
    return result


def differing_files() -> list[Path]:
    """Return the files that differ from what this program writes, and configurations that it does not write."""
    found = []
    for name in bundle_names():
        texts = build_bundle(name)
        for path, text in texts.items():
            file = BUNDLES / name / path
            if not file.is_file() or file.read_text(encoding="utf-8") != text:
                found.append(file)
        written = {BUNDLES / name / path for path in texts}
        found += sorted(set((BUNDLES / name / "configs").glob("*")) - written)
    return found


def write_bundles() -> None:
    """Write the files of all bundles."""
    for name in bundle_names():
        for path, text in build_bundle(name).items():
            file = BUNDLES / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")


def _read(path: Path) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)


def _position(key: str, order: list[str]) -> int:
    return order.index(key) if key in order else len(order)


def main() -> int:
    """Write the files, or with ``--check`` only name those that differ."""
    parser = argparse.ArgumentParser(description="Write the configurations of all bundles.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; name the files that differ and exit with 1"
    )
    if parser.parse_args().check:
        found = differing_files()
        for path in found:
            print(f"{path.relative_to(BUNDLES.parent)}: differs from what tools/build_bundle_configs.py writes")
        return 1 if found else 0
    write_bundles()
    return 0


if __name__ == "__main__":
    sys.exit(main())
