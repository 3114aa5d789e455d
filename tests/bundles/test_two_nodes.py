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

"""Two nodes of torchrun, without a common disk, come to what one process comes to, also if one of them dies."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from small_bundles import SCN_LOSS, copy_bundle, option, run, small, table
from warm_python import COPIED_WORKERS, WarmPython, free_port

pytestmark = pytest.mark.usefixtures("unpainted")
BUNDLE = "hand_xray_landmarks_scn"
WORKER = Path(__file__).with_name("node_worker.py")
EPOCHS = 4
# 10 images for training, 3 for validation and 3 for testing, which halve unevenly; every batch as in one process
DATA: dict[str, Any] = {"datalist#num_images": 16, "datalist#val_frac": 0.2, "datalist#test_frac": 0.2}
PLAIN: dict[str, Any] = {**DATA, **SCN_LOSS, "augmentation": [], "max_epochs": EPOCHS, "val_interval": 1}
LONG = os.environ.get("MONAI_LANDMARKS_FAULTS") == "long"


class Nodes:
    """Two agents of torchrun on this machine, with addresses of their own."""

    addresses = ("127.0.0.1", "127.0.0.2")
    interfaces = ("lo", "lo")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.roots = [copy_bundle(BUNDLE, folder / f"node{node}") for node in range(2)]
        self.started: list[Any] = []

    def start(self, node: int, port: int, run_id: str, more: Mapping[str, str], *configs: str, **overrides: Any) -> Any:
        """Start the agent of a node, with the command that a user writes."""
        root = self.roots[node]
        files = [str(root / "configs" / f"{config}.json") for config in (*configs, "multi_gpu_train")]
        arguments = {"bundle_root": str(root), "config_file": files, **small(root, **overrides)}
        options = ["--nnodes=2", "--nproc-per-node=1", "--max-restarts=3", "--rdzv-backend=c10d", "--rdzv-id=test"]
        options += [f"--rdzv-endpoint={self.addresses[0]}:{port}", f"--local-addr={self.addresses[node]}"]
        # a node that is gone is noticed after 6 s, not after 15 s
        options += [f"--rdzv-conf=is_host={node == 0},keep_alive_interval=1,keep_alive_max_attempt=6"]
        bundle = ["monai.bundle", "run", run_id, *(part for item in arguments.items() for part in option(*item))]
        environment = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": self.interfaces[node]}
        # otherwise the new agent of a node that was killed waits for an address that nobody writes (torch 2.13)
        environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
        agent = self._agent(node, options, bundle, {**environment, **more})
        self.started.append(agent)
        return agent

    def _agent(self, node: int, options: list[str], bundle: list[str], environment: dict[str, str]) -> Any:
        command = ["-m", "torch.distributed.run", *options, *COPIED_WORKERS, WORKER, *bundle]
        return WarmPython(command, self.folder, self.log(node), environment)

    def log(self, node: int) -> Path:
        return self.folder / f"node{node}.txt"

    def printed(self, agents: list[Any]) -> None:
        """Wait until all agents have ended without an error."""
        for node, agent in enumerate(agents):
            code = agent.wait(300)
            assert code == 0, "\n".join(f"node {n}\n{self.log(n).read_text()[-5000:]}" for n in range(2)) + str(node)

    def close(self) -> None:
        for agent in self.started:
            if agent.poll() is None:
                agent.kill()


class Namespaces(Nodes):
    """Two network namespaces that a cable connects: nothing is shared but the files, and those are not used."""

    addresses = ("10.77.0.1", "10.77.0.2")
    interfaces = ("cable0", "cable1")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.names = [f"landmarks{os.getpid()}_{node}" for node in range(2)]
        for name in self.names:
            self._ip("netns", "add", name)
        self._ip(
            "link", "add", "cable0", "netns", self.names[0], *"type veth peer name cable1 netns".split(), self.names[1]
        )
        for node, name in enumerate(self.names):
            self._ip("-n", name, "addr", "add", f"{self.addresses[node]}/24", "dev", f"cable{node}")
            for link in ("lo", f"cable{node}"):
                self._ip("-n", name, "link", "set", link, "up")

    @staticmethod
    def _ip(*arguments: str) -> None:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"this machine makes no network namespaces: {done.stderr}")

    def _agent(self, node: int, options: list[str], bundle: list[str], environment: dict[str, str]) -> Any:
        command = [sys.executable, "-m", "torch.distributed.run", *options, str(WORKER), *bundle]
        with open(self.log(node), "ab") as log:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.names[node], *command],
                cwd=self.folder,
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
            )

    def close(self) -> None:
        super().close()
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.fixture(
    params=[
        Nodes,
        pytest.param(
            Namespaces, marks=pytest.mark.skipif(not LONG, reason="MONAI_LANDMARKS_FAULTS=long runs it, as root")
        ),
    ]
)
def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Nodes]:
    two = request.param(tmp_path)
    yield two
    two.close()


def curve(root: Path) -> list[float]:
    return [float(row["metric"]) for row in table(root / "eval/training_curve.csv")]


def test_a_node_dies_and_comes_back(nodes: Nodes, tmp_path: Path) -> None:
    one = copy_bundle(BUNDLE, tmp_path / "one")
    # the batch of one process is that of both nodes together
    run(one, "train", batch_size=4, **PLAIN, **{"train#dataloader#shuffle": False})

    port, down = free_port(), tmp_path / "down"
    options = {**PLAIN, "resume": True, "train#sampler#shuffle": False}
    dying = {"DOWN_AFTER": "2", "DOWN_FILE": str(down)}
    agents = [nodes.start(node, port, "training", more, "train", **options) for node, more in ((0, {}), (1, dying))]
    end = time.monotonic() + 300
    while not down.exists():
        assert time.monotonic() < end and agents[1].poll() is None, nodes.log(1).read_text()[-5000:]
        time.sleep(0.05)
    agents[1].kill()
    os.kill(int(down.read_text()), signal.SIGKILL)
    agents[1] = nodes.start(1, port, "training", {}, "train", **options)
    nodes.printed(agents)

    first, second = nodes.roots
    assert "resumed model" in nodes.log(0).read_text() and "resumed model" in nodes.log(1).read_text()
    assert curve(first) == pytest.approx(curve(one), rel=1e-3)
    assert len(curve(first)) == EPOCHS
    # only rank 0 writes
    assert not (second / "models").exists() and not (second / "eval").exists()

    # the second node needs a copy of the weights; rank 0 then has the files of all images
    shutil.copytree(first / "models", second / "models")
    port = free_port()
    nodes.printed([nodes.start(node, port, "evaluating", {}, "train", "evaluate", **DATA) for node in range(2)])
    shutil.copytree(first / "models", one / "models", dirs_exist_ok=True)
    run(one, "train", "evaluate", **DATA)
    both = [table(root / "eval/testing/metrics.csv") for root in (first, one)]
    assert [row["metric"] for row in both[0]] == [row["metric"] for row in both[1]]
    values = [[float(row["value"]) for row in rows] for rows in both]
    assert values[0] == pytest.approx(values[1], rel=1e-4, abs=1e-4)
    images = [
        {row["image"].rpartition("/")[2] for row in table(r / "eval/testing/errors_per_image.csv")}
        for r in (first, one)
    ]
    files = [{path.name for path in (root / "eval/testing/predictions").iterdir()} for root in (first, one)]
    assert images[0] == images[1] and len(images[0]) == 3 and files[0] == files[1]
