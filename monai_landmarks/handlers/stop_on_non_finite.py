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
"""Stop an engine whose loss, weights or network output is NaN or infinite."""

from __future__ import annotations

import math
from typing import Any

import torch
from monai.engines import Trainer
from monai.utils import CommonKeys

from monai_landmarks.data.files.tensor_files import non_finite_weights

from .engine_output import Engine, Events, batch_items, image_path, loss_of

__all__ = ["StopOnNonFinite"]

_MOST_NAMED = 8


class StopOnNonFinite:
    """Stop with an error as soon as a value that must be finite is NaN or infinite.

    In a trainer, this is the loss of each iteration, and each weight after an epoch. The error states the iteration,
    the learning rate, the images of the batch and what to try. If an image itself contains NaN or infinite voxels, the
    error names it. Put this handler before those that validate or save, so that nothing of this epoch is saved.

    In an evaluator, it is the output of the network; with a close look, that of both of its networks. Without this
    handler, all landmarks of such an image would be missing.

    Args:
        loss_key: key of the loss in the trainer's output.
        image_key: key of the image in the batch.

    Raises:
        ValueError: while the engine runs.
    """

    def __init__(self, loss_key: str = CommonKeys.LOSS, image_key: str = CommonKeys.IMAGE) -> None:
        self.loss_key = loss_key
        self.image_key = image_key
        self._hooks: list[Any] = []
        self._finite: torch.Tensor | None = None

    def attach(self, engine: Engine) -> None:
        """Attach the handler.

        Args:
            engine: a MONAI trainer or evaluator.
        """
        if isinstance(engine, Trainer):
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._check_loss)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._check_weights)
        else:
            engine.add_event_handler(Events.EPOCH_STARTED, self._watch)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._check_output)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._unwatch)

    def _watch(self, engine: Engine) -> None:
        """Look at the network itself, because an inferer may return points."""
        self._unwatch()
        network: Any = engine.network  # type: ignore[attr-defined]
        network = getattr(network, "module", network)
        # the inferer of a close look calls the two networks in it
        parts = [getattr(network, name, None) for name in ("coarse", "fine")]
        for module in (network, *parts):
            if isinstance(module, torch.nn.Module):
                self._hooks.append(module.register_forward_hook(lambda _module, _inputs, output: self._look_at(output)))

    def _unwatch(self, _engine: Engine | None = None) -> None:
        self._finite = None
        while self._hooks:
            self._hooks.pop().remove()

    def _look_at(self, output: Any) -> None:
        for values in output if isinstance(output, (tuple, list)) else [output]:
            if isinstance(values, torch.Tensor):
                finite = torch.isfinite(values.detach()).all()
                self._finite = finite if self._finite is None else self._finite & finite

    def _check_output(self, engine: Engine) -> None:
        finite, self._finite = self._finite, None
        if finite is None or bool(finite):
            return
        self._unwatch()
        names = ", ".join(name for name, _ in self._images(engine)[:_MOST_NAMED]) or "this batch"
        raise ValueError(
            f"The output of the network is NaN or infinite for {names}. If this happens with every image, the weights are "
            "useless; otherwise use full precision (--precision float32)."
        )

    def _check_loss(self, engine: Engine) -> None:
        loss = loss_of(engine, self.loss_key)
        if loss is None or math.isfinite(loss):
            return
        images = self._images(engine)
        damaged = [f"{name} ({count} voxels)" for name, count in images if count]
        if damaged:
            causes = (
                f"These images contain voxels that are NaN or infinite: {', '.join(damaged)}. Correct or remove them."
            )
        else:
            names = ", ".join(name for name, _ in images[:_MOST_NAMED])
            causes = f"{_REMEDIES} The images of this batch were {names}." if names else _REMEDIES
        raise ValueError(f"The loss is {loss} at {_place(engine)}. {causes} {_KEPT}")

    def _check_weights(self, engine: Engine) -> None:
        for holder in (getattr(engine, "network", None), getattr(engine, "loss_function", None)):
            if not isinstance(holder, torch.nn.Module):
                continue
            reason = non_finite_weights(getattr(holder, "module", holder))
            if reason is not None:
                raise ValueError(f"The weights are lost at {_place(engine)}: {reason}. {_REMEDIES} {_KEPT}")

    def _images(self, engine: Engine) -> list[tuple[str, int]]:
        """Return the name of each image of the batch, and the number of its voxels that are not finite."""
        found = []
        for number, item in enumerate(batch_items(engine)):
            image = item.get(self.image_key)
            if isinstance(image, torch.Tensor):
                name = image_path(item, self.image_key) or f"image {number} of the batch"
                found.append((name, int((~torch.isfinite(image.detach())).sum())))
        return found


_REMEDIES = (
    "Try a smaller learning rate (--learning_rate), a limit on the gradients (--max_gradient_norm 1.0), or full precision "
    "(--precision float32)."
)
_KEPT = "Nothing of this epoch was saved; --resume true continues from the epoch before."


def _place(engine: Engine) -> str:
    state = engine.state
    groups = getattr(getattr(engine, "optimizer", None), "param_groups", [])
    rates = sorted({float(group["lr"]) for group in groups})
    rate = f", learning rate {', '.join(f'{rate:g}' for rate in rates)}" if rates else ""
    return f"iteration {state.iteration} (epoch {state.epoch} of {state.max_epochs}){rate}"
