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

"""Names, paths, settings and JSON of requests to the label server."""

from __future__ import annotations

from typing import Any

import pytest

from monai_landmarks.label.request_values import (
    file_name,
    json_object,
    require_name,
    require_path,
    require_task_settings,
)


@pytest.mark.parametrize("name", ["one", "scan.v2.png", "Größe 3", "a..b", "1.2.840.1", "-x", "x" * 200])
def test_names(name: str) -> None:
    require_name(name, "image")
    assert file_name(f"C:\\data\\{name}") == file_name(f"/data/{name}") == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "/x", "a/b", "a\\b", "a\nb", "a\x00", "\x85", "\ud800", ".x", "é" * 101, None, 3]
)
def test_no_names(name: Any) -> None:
    with pytest.raises(ValueError, match="^image "):
        require_name(name, "image")


def test_paths() -> None:
    require_path("studies/1.2.3/series/4/", "the path")
    for path in ("a/../b", "a/%2e%2e/b", "a/%2E./b", "..", "a\\..\\b"):
        with pytest.raises(ValueError, match="the path"):
            require_path(path, "the path")


def test_settings_of_the_viewers_are_accepted() -> None:
    require_task_settings(
        {
            "device": ["NVIDIA H100 80GB HBM3:0"],
            "client_id": "DOMAIN\\user@example.org",
            "result_extension": ".nrrd",
            "label_info": [{"name": "left/right", "color": [1, 2, 3]}],
            "tracking_uri": "",
            "gpus": "0,1",
            "points": [[1.5, 2, 3]],
            "pretrained": True,
        }
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"a": "$b"},
        {"a": [["@b"]]},
        {"a": {"b": [{"c": "%d"}]}},
        {"a": {"_target_": "b"}},
        {"_requires_": []},
        {"bundle_path": "x"},
        {"a": {"session": {"image": "x"}}},
        {"a": "b/c"},
        {"a": ["b", "../c"]},
        {"a": float("nan")},
        {"a": "\ud800"},
        {"tracking_uri": "x"},
    ],
)
def test_settings_that_could_do_more(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="setting"):
        require_task_settings(settings)


def test_json_objects() -> None:
    assert json_object('{"a": [1, null]}', "params") == {"a": [1, None]}
    deep = '{"a": ' + "[" * 40 + "]" * 40 + "}"
    for text in ("", "{", "[]", "3", '{"a": NaN}', '{"a": 1e999}', deep, "[" * 100_000, "9" * 5000, r'{"\ud800": 1}'):
        with pytest.raises(ValueError, match="^params "):
            json_object(text, "params")
