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

"""Batches of what can be read."""

from __future__ import annotations

import io
from operator import length_hint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import Dataset
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose, LoadImaged, Resized
from PIL import Image

from monai_landmarks.data import ReadableDataLoader, UnreadableImagesError
from monai_landmarks.handlers import TrainingProgress


def numbers(broken: set[int], count: int = 10, **options: Any) -> ReadableDataLoader:
    """A loader of the numbers 0, 1, ..., some of which cannot be read."""

    def read(item: dict) -> dict:
        if int(item["image"]) in broken:
            raise ValueError(f"{item['image']} is broken\nand more of it")
        return {"image": torch.tensor([float(item["image"])])}

    return ReadableDataLoader(Dataset([{"image": str(i)} for i in range(count)], read), **options)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("broken", [set(), {0}, {9}, {1, 2, 3, 4}, {0, 1, 2, 4, 5, 6, 7, 8, 9}])
def test_what_can_be_read_comes_once_and_in_order(broken, workers):
    loader = numbers(broken, batch_size=3, num_workers=workers)
    for _ in range(2):  # a second pass starts from the beginning
        batches = [batch["image"].flatten().tolist() for batch in loader]
        good = [float(i) for i in range(10) if i not in broken]
        assert batches == [good[i : i + 3] for i in range(0, len(good), 3)]
        assert [(int(item.image), item.reason) for item in loader.unreadable] == [
            (i, f"{i} is broken") for i in sorted(broken)
        ]
    assert length_hint(loader) == 4 >= len(batches)


def test_the_log_names_what_is_left_out(caplog):
    list(numbers({3}))
    assert [record.getMessage() for record in caplog.records] == ["3 is left out: 3 is broken"]


def test_an_error_names_what_was_left_out():
    loader = numbers({3, 5})
    list(loader)
    with pytest.raises(
        UnreadableImagesError, match="2 of the 10 images were left out, .*:\n  - 3: 3 is broken\n  - 5: 5 is "
    ):
        loader.require_all_read()
    loader = numbers(set(range(25)), 30)
    list(loader)
    with pytest.raises(UnreadableImagesError, match="\n  - 19: 19 is broken\n  - and 5 more$"):
        loader.require_all_read()
    loader = numbers(set())
    list(loader)
    loader.require_all_read()


def test_nothing_can_be_read():
    with pytest.raises(ValueError, match="none of the 2 images can be read:\n  - 0: 0 is broken\n  - 1: 1 is broken"):
        list(numbers({0, 1}, 2))
    with pytest.raises(ValueError, match="batch_size is 0"):
        numbers(set(), batch_size=0)


@pytest.mark.parametrize("broken", [set(), {4}, {0, 1, 2, 3, 7}])
def test_an_engine_sees_each_image_once(broken, capsys):
    """Whole batches fall away in the last case; an engine with a fixed length would begin from the start again."""
    seen: list[float] = []

    def step(engine: Any, batch: dict) -> dict:
        seen.extend(batch["image"].flatten().tolist())
        return {}

    loader = numbers(broken, batch_size=2)
    evaluator = SupervisedEvaluator(
        torch.device("cpu"),
        loader,
        torch.nn.Identity(),
        iteration_update=step,
        val_handlers=[TrainingProgress(seconds=0, desc="run")],
    )
    for _ in range(2):
        seen.clear()
        evaluator.run()
        assert seen == [i for i in range(10) if i not in broken]
    iterations = -(-(10 - len(broken)) // 2)
    lines = capsys.readouterr().err.splitlines()
    # of the largest number of batches at first, and of those that there were at the end
    assert lines[0].startswith("run: iteration 1/5 (20 %)")
    assert lines[iterations].startswith(f"run: iteration {iterations}/{iterations} (100 %)")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_progress_bar_ends_full():
    stream = Terminal()
    SupervisedEvaluator(
        torch.device("cpu"),
        numbers({0, 1, 2, 3, 7}, batch_size=2),
        torch.nn.Identity(),
        iteration_update=lambda engine, batch: {},
        val_handlers=[TrainingProgress(stream=stream, desc="run")],
    ).run()
    shown = stream.getvalue().rstrip().split("\r")
    assert any("/5 " in bar for bar in shown) and "100%" in shown[-1] and " 3/3 " in shown[-1]


def test_reasons_are_those_of_the_reader(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 255, (30, 40), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.png").write_text("no picture")
    names = ["cut.png", "whole.png", "text.png", "absent.png"]
    load = Compose([LoadImaged("image", ensure_channel_first=True)])
    loader = ReadableDataLoader(Dataset([{"image": str(tmp_path / name)} for name in names], load), batch_size=4)
    [batch] = loader
    assert batch["image"].shape == (1, 1, 40, 30)
    reasons = {Path(item.image).name: item.reason for item in loader.unreadable}
    assert list(reasons) == ["cut.png", "text.png", "absent.png"]
    assert "truncated" in reasons["cut.png"] and "cannot identify" in reasons["text.png"]
    assert "No such file" in reasons["absent.png"]


def test_the_reason_of_an_image_that_is_too_narrow():
    images = [{"image": torch.zeros(1, *size)} for size in ((5, 4000), (50, 60))]
    resize = Compose([Resized("image", spatial_size=64, size_mode="longest", mode="bilinear")])
    loader = ReadableDataLoader(Dataset(images, resize))
    [batch] = loader
    assert batch["image"].shape == (1, 1, 53, 64)
    assert loader.unreadable[0].reason.startswith("the image is too narrow to be resized (Input and output sizes")


def test_images_of_different_sizes_do_not_share_a_batch():
    images = Dataset([{"image": torch.zeros(1, size, 4)} for size in (4, 4, 5)])
    assert len(list(ReadableDataLoader(images, batch_size=1))) == 3
    with pytest.raises(ValueError, match=r"\(1, 4, 4\), \(1, 5, 4\).*use batch_size=1"):
        list(ReadableDataLoader(images, batch_size=3))
