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


"""Data loader that skips unreadable images."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from monai.data import list_data_collate
from monai.utils import CommonKeys
from torch.utils.data import DataLoader, Dataset

from monai_landmarks.data.files.safe_files import printable

__all__ = ["ReadableDataLoader", "UnreadableImage", "UnreadableImagesError", "error_reason", "list_unreadable"]

logger = logging.getLogger(__name__)

_MOST_NAMED = 20
_WRAPPER = "applying transform"  # start of the message in which MONAI wraps the error of a transform


class UnreadableImage(NamedTuple):
    """An image that was left out, and the reason."""

    image: str
    reason: str


class UnreadableImagesError(ValueError):
    """Images were left out: all of them, or some, see :meth:`ReadableDataLoader.require_all_read`."""


class SizedDataset(Protocol):
    """A map-style dataset with a length."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class ReadableDataLoader:
    """Load batches of a dataset and skip the items that cannot be read.

    One damaged file does not end an inference. It is named in the log with the reason, and the next readable item takes
    its place in the batch. An item is readable if all transforms of the dataset succeed. Items with an entry
    ``unreadable`` in the ``data`` of the dataset are skipped without trying; the entry is the reason. Entries that only
    some items of a batch have are removed, for example the ``spacing`` of PNG files.

    The loader has no length, because the number of readable items is only known at the end. Its ``__length_hint__`` is
    the largest possible number of batches.

    Args:
        dataset: dataset with a length whose items are dictionaries, for example MONAI's ``Dataset``.
        batch_size: items per batch; the last batch may be smaller.
        num_workers: number of worker processes; see ``torch.utils.data.DataLoader``.
        image_key: key of the image that gives an item its name.

    Attributes:
        unreadable: :class:`UnreadableImage` objects that the current or last pass has left out.
        current: names of the images of the batch that was returned last.
        alone: names of images that get a batch of their own.

    Raises:
        UnreadableImagesError: during a pass, if no item can be read, with the reasons.
        ValueError: during a pass, if the images of a batch differ in shape.

    Example:
        >>> from monai.data import Dataset
        >>> from monai.transforms import Lambdad
        >>> items = [{"image": text} for text in ("1", "2", "three", "4")]
        >>> loader = ReadableDataLoader(Dataset(items, Lambdad("image", int)), batch_size=2)
        >>> [batch["image"].tolist() for batch in loader], [left_out.image for left_out in loader.unreadable]
        ([[1, 2], [4]], ['three'])
    """

    def __init__(
        self, dataset: SizedDataset, batch_size: int = 1, num_workers: int = 0, image_key: str = CommonKeys.IMAGE
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; expected 1 or more.")
        self.dataset = dataset
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.image_key = image_key
        self.unreadable: list[UnreadableImage] = []
        self.current: list[str] = []
        self.alone: set[str] = set()

    def require_all_read(self) -> None:
        """Raise an error if the last pass has left out images.

        Call this after the results of the other images are written, so that a program does not end as if all images had
        results.

        Raises:
            UnreadableImagesError: with the images and the reasons.
        """
        if self.unreadable:
            count = f"{len(self.unreadable)} of the {len(self.dataset)} images were left out, the others are complete:"
            raise UnreadableImagesError(list_unreadable(count, self.unreadable))

    def __length_hint__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        self.unreadable = []
        names: list[str] = []
        batch: list[dict[str, Any]] = []
        for index, item in enumerate(self._items()):
            if isinstance(item, UnreadableImage):
                self.unreadable.append(item)
                logger.warning("%s is left out: %s", *item)
                continue
            name = _name(self.dataset, index, self.image_key)
            if batch and name in self.alone:
                yield self._collate(batch, names)
                batch, names = [], []
            batch.append(item)
            names.append(name)
            if len(batch) == self.batch_size or name in self.alone:
                yield self._collate(batch, names)
                batch, names = [], []
        if batch:
            yield self._collate(batch, names)
        if len(self.unreadable) == len(self.dataset):
            raise UnreadableImagesError(
                list_unreadable(f"none of the {len(self.dataset)} images can be read:", self.unreadable)
            )

    def _items(self) -> Iterator[Any]:
        """Return each item, or the reason why it cannot be read: only the main process sees those of all workers."""
        # while the network runs on a batch, the workers load the next one
        ahead = 1 + -(-self.batch_size // self.num_workers) if self.num_workers else None
        attempts = _Attempts(self.dataset, self.image_key)
        return iter(DataLoader(attempts, batch_size=None, num_workers=self.num_workers, prefetch_factor=ahead))

    def _collate(self, items: list[dict[str, Any]], names: list[str]) -> Any:
        self.current = names
        common = [key for key in items[0] if all(key in item for item in items)]
        shapes = {tuple(getattr(item.get(self.image_key), "shape", ())) for item in items}
        if len(shapes) > 1:
            raise ValueError(f"images of the shapes {sorted(shapes)} cannot share a batch; use batch_size=1.")
        return list_data_collate([{key: item[key] for key in common} for item in items])


class _Attempts(Dataset):
    """Dataset that returns the reason for each item that cannot be read."""

    def __init__(self, dataset: SizedDataset, image_key: str) -> None:
        self.dataset = dataset
        self.image_key = image_key

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        try:
            if reason := _item(self.dataset, index).get("unreadable"):
                raise ValueError(reason)
            return self.dataset[index]
        except Exception as error:  # readers and transforms raise exceptions of any type
            return UnreadableImage(_name(self.dataset, index, self.image_key), error_reason(error))


def _item(dataset: SizedDataset, index: int) -> dict[str, Any]:
    """Return the entry of the dataset's ``data``; empty if the dataset has none."""
    data = getattr(dataset, "data", None)
    return data[index] if data is not None and isinstance(data[index], dict) else {}


def _name(dataset: SizedDataset, index: int, image_key: str) -> str:
    return printable(str(_item(dataset, index).get(image_key, f"item {index}")))


def list_unreadable(start: str, unreadable: Sequence[UnreadableImage]) -> str:
    """Return a text with the first images that cannot be read, and the reasons.

    Args:
        start: first line.
        unreadable: the images.
    """
    named = [f"{image}: {reason}" for image, reason in unreadable[:_MOST_NAMED]]
    more = len(unreadable) - len(named)
    return "\n  - ".join([start, *named, *([f"and {more} more"] if more else [])])


def error_reason(error: BaseException) -> str:
    """Return the first line of the error that a transform raised, without MONAI's own message around it."""
    while str(error).startswith(_WRAPPER) and error.__cause__ is not None:
        error = error.__cause__
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    if reason.startswith("Input and output sizes should be greater than 0"):  # of torch, from MONAI's Resize
        return f"the image is too narrow to be resized ({reason})."
    return reason
