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

"""Several annotators at once at a label server, while it trains: response times, lost labels, memory; see README.md.

python benchmarks/label_practice.py [--annotators 5] [--images 2000] [--minutes 10] [--pause 5] [--quick]
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fire
import psutil
import requests

from monai_landmarks.data import write_hand_phantom
from monai_landmarks.evaluation.bundle_facts import resolve_bundle

__all__ = ["Practice", "table"]

STEPS = ("next image", "proposal", "submit")


class Practice:
    """Annotators who ask for an image, ask for a proposal, move its points and submit them, again and again.

    Args:
        url: address of the server.
        model: name of the model.
        strategy: how the server chooses the next image.
        timeout: longest time of a request, in seconds.
    """

    def __init__(self, url: str, model: str, strategy: str = "random", timeout: float = 300) -> None:
        self.url, self.model, self.strategy, self.timeout = url, model, strategy, timeout
        self.given: list[str] = []  # images, in the order in which they were given
        self.submitted: dict[str, list[list[float]]] = {}  # points in LPS mm by image
        self.errors: list[str] = []
        self.seconds: list[tuple[str, float, bool]] = []  # step, time, and whether a training was running
        self.training = False
        self._lock = threading.Lock()

    def ask(self, step: str, method: str, path: str, **more: Any) -> Any:
        """Send a request, note its time, and return the JSON answer."""
        start, training = time.perf_counter(), self.training
        answer = requests.request(method, self.url + path, timeout=self.timeout, **more)
        with self._lock:
            self.seconds.append((step, time.perf_counter() - start, training))
        answer.raise_for_status()
        return answer.json()

    def annotate(self, annotator: int) -> bool:
        """Annotate one image, and return whether there was one."""
        body = {"model": self.model, "client_id": "slicer"}  # all clients have the same name, as in 3D Slicer
        given = self.ask("next image", "POST", f"/activelearning/{self.strategy}", json=body)
        if not given:
            return False
        image = given["id"]
        with self._lock:
            self.given.append(image)
        found = self.ask("proposal", "POST", f"/infer/{self.model}", params={"image": image, "output": "json"})
        points = []
        for number, landmark in enumerate(found["landmarks"]):
            x, y, z = landmark["position"] or (0.0, 0.0, 0.0)
            # RAS to LPS, and a correction by which the label can be recognized
            points.append([-x + 0.125 * annotator, -y + 0.25 * number, z])
        label = {
            "markups": [
                {
                    "type": "Fiducial",
                    "coordinateSystem": "LPS",
                    "controlPoints": [
                        {"label": landmark["name"], "position": point}
                        for landmark, point in zip(found["landmarks"], points)
                    ],
                }
            ]
        }
        files = {"label": (f"{image}.mrk.json", json.dumps(label).encode())}
        self.ask("submit", "PUT", "/datastore/label", params={"image": image}, files=files)
        with self._lock:
            self.submitted[image] = points
        return True

    def run(self, annotators: int, goes_on: Callable[[int], bool], pause: float = 0.0) -> None:
        """Let annotators work at the same time.

        Args:
            annotators: number of annotators.
            goes_on: returns whether an annotator goes on, from the number of the images that he or she has annotated.
            pause: seconds between a proposal and the next image, in which an annotator looks at it.
        """

        def work(annotator: int) -> None:
            done = 0
            while goes_on(done):
                try:
                    if not self.annotate(annotator):
                        return
                except Exception as error:  # reported, and the annotator tries the next image
                    with self._lock:
                        self.errors.append(f"{type(error).__name__}: {error}"[:300])
                done += 1
                time.sleep(pause)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(annotators)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def faults(self, studies: Path) -> list[str]:
        """Compare what was submitted with what is on the disk, and return what is wrong.

        Args:
            studies: folder of the images of the server.
        """
        found = [f"{image} was given {n} times" for image, n in Counter(self.given).items() if n > 1]
        for image, points in self.submitted.items():
            path = studies / "labels" / "final" / f"{image}.mrk.json"
            if not path.is_file():
                found.append(f"the label of {image} is lost")
                continue
            (markups,) = json.loads(path.read_text())["markups"]
            stored = [point["position"] for point in markups["controlPoints"]]
            if stored != points:
                found.append(f"the label of {image} is not the one that was submitted")
        completed = requests.get(f"{self.url}/info/", timeout=self.timeout).json()["datastore"]["completed"]
        if completed != len(self.submitted):
            found.append(f"the server counts {completed} labels, {len(self.submitted)} were submitted")
        return [*found, *self.errors]


def table(seconds: list[tuple[str, float, bool]]) -> str:
    """Return the response times as a table in Markdown, without and with a training in the background."""
    lines = ["| request | training | number | median s | 95 % s | longest s |", "|---|---|---|---|---|---|"]
    for step in STEPS:
        for training in (False, True):
            times = sorted(value for name, value, during in seconds if name == step and during == training)
            if times:
                late = times[min(len(times) - 1, int(0.95 * len(times)))]
                cells = [f"{value:.2f}" for value in (statistics.median(times), late, times[-1])]
                lines.append(f"| {step} | {'yes' if training else 'no'} | {len(times)} | {' | '.join(cells)} |")
    return "\n".join(lines)


@contextmanager
def server(folder: Path, studies: Path, model: Path) -> Any:
    """Run a label server, and give its address and its process."""
    port = 8700
    command = ["-m", "monai_landmarks", "label-server", "--studies", str(studies)]
    command += ["--port", str(port), "--conf", "models", str(model)]
    with open(folder / "server.log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"the server has ended; see {folder / 'server.log'}.")
            try:
                requests.get(f"{url}/info/", timeout=60).raise_for_status()
                break
            except requests.RequestException:
                time.sleep(1)
        yield url, psutil.Process(process.pid)
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):  # with the training that it may have started
            try:
                os.killpg(process.pid, number)
                process.wait(20)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def main(
    bundle: str = "hand_xray_landmarks_scn",
    annotators: int = 5,
    images: int = 2000,
    minutes: float = 10.0,
    pause: float = 5.0,
    epochs: int = 3,
    quick: bool = False,
) -> None:
    """Run a label server with many images and let several annotators work at it, with a training in the middle.

    Args:
        bundle: a trained bundle for hand radiographs, a folder or a name.
        annotators: number of annotators.
        images: number of images; copies of 20 phantoms.
        minutes: how long the annotators work.
        pause: seconds that an annotator looks at an image.
        epochs: epochs of the training, which starts after a third of the time.
        quick: few images and seconds, only to see that it runs.
    """
    if quick:
        annotators, images, minutes, pause, epochs = 2, 12, 0.1, 0.0, 1
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        studies, model = folder / "studies", folder / "models" / "hand"
        shutil.copytree(resolve_bundle(bundle), model, ignore=shutil.ignore_patterns("eval", "data"))
        drawn = min(images, 20)
        write_hand_phantom(folder / "phantom", drawn, size=(256, 256))
        sources = sorted((folder / "phantom" / "images").iterdir())
        studies.mkdir()
        for number in range(images):
            shutil.copy(sources[number % drawn], studies / f"hand_{number:05d}{sources[0].suffix}")
        with server(folder, studies, model) as (url, process):
            name = next(iter(requests.get(f"{url}/info/", timeout=300).json()["models"]))
            work = Practice(url, name)
            start, memory, status = time.monotonic(), [], "not started"
            end = start + 60 * minutes
            stop = threading.Event()

            def watch() -> None:
                nonlocal status
                while not stop.wait(min(5.0, 6 * minutes)):
                    memory.append((time.monotonic() - start, process.memory_info().rss / 2**20))
                    if status == "not started" and time.monotonic() > start + 20 * minutes and work.submitted:
                        body = {"max_epochs": epochs, "multi_gpu": False}
                        requests.post(f"{url}/train/{name}", json=body, timeout=300).raise_for_status()
                        status, work.training = "RUNNING", True
                    elif work.training:
                        tasks = requests.get(f"{url}/train/?all=true", timeout=300).json()
                        status = tasks[-1]["status"] if tasks else "lost"
                        work.training = status in ("SUBMITTED", "RUNNING")

            watcher = threading.Thread(target=watch)
            watcher.start()
            work.run(annotators, lambda done: time.monotonic() < end, pause)
            stop.set()
            watcher.join()
            faults = work.faults(studies)
            print(f"{annotators} annotators, {images} images, {minutes:g} minutes, {pause:g} s at each image\n")
            print(table(work.seconds))
            print(f"\n{len(work.submitted)} labels, {len(faults)} faults; the training: {status}")
            for fault in faults[:20]:
                print(f"- {fault}")
            if memory:
                shown = [memory[round(part * (len(memory) - 1))] for part in (0.0, 0.25, 0.5, 0.75, 1.0)]
                print("memory of the server: " + ", ".join(f"{mib:.0f} MiB after {at:.0f} s" for at, mib in shown))


if __name__ == "__main__":
    fire.Fire(main)
