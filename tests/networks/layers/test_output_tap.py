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


"""The tap is the identity and passes its output to receivers in training mode only."""

from __future__ import annotations

import copy
import gc
import io
import pickle

import pytest
import torch

from monai_landmarks.networks.layers import OutputTap


class Receiver:
    def __init__(self):
        self.received = []

    def receive(self, output):
        self.received.append(output)


def test_receivers_get_the_output_in_training_only():
    tap, receivers, x = OutputTap(), [Receiver(), Receiver()], torch.rand(2, 3)
    assert tap(x) is x
    for receiver in receivers:
        tap.connect(receiver)
    assert tap(x) is x and tap.eval()(x) is x
    assert [len(receiver.received) for receiver in receivers] == [1, 1] and receivers[0].received[0] is x
    del receivers[0], receiver
    gc.collect()
    tap.train()(x)
    assert len(receivers[0].received) == 2
    assert tap.state_dict() == {}


@pytest.mark.parametrize(
    "make", [copy.deepcopy, lambda tap: pickle.loads(pickle.dumps(tap))], ids=["deepcopy", "pickle"]
)
def test_a_copy_has_no_receivers(make):
    tap, receiver = OutputTap(), Receiver()
    tap.connect(receiver)
    make(tap)(torch.ones(1))
    assert receiver.received == []
    tap(torch.ones(1))
    assert len(receiver.received) == 1


def test_scripted_it_is_the_identity():
    tap, receiver, x = OutputTap(), Receiver(), torch.rand(4)
    tap.connect(receiver)
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(tap), file)
    file.seek(0)
    assert torch.equal(torch.jit.load(file)(x), x) and receiver.received == []
