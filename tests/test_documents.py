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

"""What the README and the pages of the site show runs, and what the documents link to is there."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from monai.bundle import ConfigParser

from monai_landmarks.apps.main import program
from monai_landmarks.data import write_hand_phantom

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("monai_landmarks/**/*.md"),
        *ROOT.glob("bundles/*/docs/*.md"),
        *ROOT.glob("bundles/*/models/*.md"),
        *ROOT.glob("notebooks/*.md"),
        *ROOT.glob("benchmarks/*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("docs/upstream/*.md"),
    ]
)


def python_blocks(path):
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), flags=re.MULTILINE | re.DOTALL)


CODE = [
    pytest.param(path, code, id=f"{path.name}-{number}")
    for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
    for number, code in enumerate(python_blocks(path))
]


@pytest.mark.parametrize("path, code", CODE)
def test_code_runs(path, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(path), "exec"), {})


def test_the_loss_of_the_recipe_replaces_that_of_a_bundle(tmp_path, monkeypatch):
    recipe = ROOT / "docs/recipes.md"
    loss = next(code for code in python_blocks(recipe) if "AbsoluteLoss" in code)
    (tmp_path / "my_losses.py").write_text(loss)
    (tmp_path / "my_loss.json").write_text(re.findall(r"```json\n(.*?)```", recipe.read_text(), flags=re.DOTALL)[0])
    monkeypatch.syspath_prepend(tmp_path)
    parser = ConfigParser()
    parser.read_config([ROOT / "bundles/hand_xray_landmarks_scn/configs/train.json", tmp_path / "my_loss.json"])
    parser["bundle_root"] = str(ROOT / "bundles/hand_xray_landmarks_scn")
    made = parser.get_parsed_content("loss")
    assert type(made).__name__ == "AbsoluteLoss" and float(made.target.sigma) == 2.5
    handlers = parser["validate#handlers"]  # the loss must have what the bundle saves of it
    (number,) = (i for i, handler in enumerate(handlers) if "sigma" in handler.get("save_dict", {}))
    assert handlers[number]["save_dict"]["sigma"]["_target_"].endswith("TargetSigma")
    assert parser.get_parsed_content("#".join(["validate", "handlers", str(number), "save_dict", "sigma"]))


def test_the_tables_of_the_claims_are_those_of_the_studies():
    page = (ROOT / "docs" / "claims.md").read_text()
    tables = sorted(ROOT.glob("docs/study_results/*/results.csv"))
    assert len(tables) >= 2
    for path in tables:
        assert (ROOT / "docs" / "study_definitions" / f"{path.parent.name}.yaml").is_file()
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                size = f" {row['training_images']} |" if "training_images" in row else ""
                numbers = [f"{float(row[name]):.2f}" for name in ("mean", "mean_low", "mean_high")]
                line = f"| `{row['configuration']}` |{size} {numbers[0]} | {numbers[1]} to {numbers[2]} |"
                assert line in page, (path, line)


def test_the_table_of_weights_has_the_terms_of_each_bundle():
    rows = re.findall(
        r"^\| `(\w+)` \| (.+?) \| (yes|no) \|", (ROOT / "docs/weights.md").read_text(), flags=re.MULTILINE
    )
    metadata = {
        path.parents[1].name: json.loads(path.read_text()) for path in ROOT.glob("bundles/*/configs/metadata.json")
    }
    terms = {name: values["weights_terms"] for name, values in metadata.items() if "weights_terms" in values}
    in_wheel = set(re.findall(r"^ +(\w+)/models/pretrained", (ROOT / "setup.cfg").read_text(), flags=re.MULTILINE))
    assert sorted(rows) == sorted((name, term, "yes" if name in in_wheel else "no") for name, term in terms.items())


def test_the_readme_is_short():
    text = re.sub(r"<!--.*?-->", "", (ROOT / "README.md").read_text())
    assert len(text.split()) <= 900


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    links = re.findall(r"\]\(([^)#\s]+)", path.read_text())
    local = [link for link in links if not re.match(r"\w+:", link)]
    assert [link for link in local if not (path.parent / link).exists()] == []


PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
TRAINING = "monai.bundle run training"  # tests/bundles and lesson 6 train


def command_blocks(path):
    """Blocks of commands of a page: the reason why the tests do not run it, if the page states one, and the commands."""
    block = r"(?:^ *<!-- not run: ([^\n]+) -->\n+)?^ *```bash\n(.*?)^ *```"
    for reason, text in re.findall(block, path.read_text(), flags=re.MULTILINE | re.DOTALL):
        lines = (line.strip() for line in text.replace("\\\n", " ").splitlines())
        yield reason, [line for line in lines if line and not line.startswith("#")]


def arguments(command):
    """Arguments of ``monai-landmarks`` in a line, or None."""
    words = shlex.split(command, comments=True)
    place = next((i for i, word in enumerate(words) if Path(word).name == "monai-landmarks"), None)
    return None if place is None else words[place + 1 :]


COMMANDS = sorted(
    {
        (str(path.relative_to(ROOT)), command)
        for path in DOCUMENTS
        for _, commands in command_blocks(path)
        for command in commands
        if arguments(command)
    }
)


@pytest.mark.parametrize("page, command", COMMANDS)
def test_options_exist(page, command, monkeypatch):
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: Path(value))  # my/... is not there
    name, *words = arguments(command)
    parser = program.commands[name]
    while isinstance(parser, click.Group):
        parser = parser.commands[words.pop(0)]
    parser.make_context(name, words)


def test_commands_of_the_pages_run(tmp_path, monkeypatch):
    """In the order of the pages' way: data, bundle, prediction, evaluation. Trainings are left out."""
    monkeypatch.chdir(tmp_path)
    write_hand_phantom("my", num_images=10, size=(96, 96), spacing=0.92)
    shutil.copytree("my/images", "my/new_images", ignore=shutil.ignore_patterns("*[2-9].png"))
    way = ["README.md", "docs/own_data.md", "docs/predict.md", "docs/files.md", "docs/evaluate.md"]
    blocks = {str(path.relative_to(ROOT)): list(command_blocks(path)) for path in PAGES}
    ran = 0
    for page in [*way, *(page for page in blocks if page not in way)]:
        if page == "docs/predict.md":  # a trained bundle
            shutil.rmtree("my/bundle")
            # without the results of a training in this checkout
            source = ROOT / "bundles/hand_xray_landmarks_scn"
            shutil.copytree(source, "my/bundle", ignore=shutil.ignore_patterns("eval"))
        if page == "docs/evaluate.md":  # its predictions
            shutil.copytree("my/slicer", "my/bundle/eval/predictions")
        for reason, commands in blocks[page]:
            for command in commands:
                words = arguments(command)
                if reason or TRAINING in command:
                    continue
                assert words, f"{page} has a command that is neither run here nor marked as not run: {command}"
                shutil.rmtree(words[words.index("--out") + 1] if words[0] == "init" else "none", ignore_errors=True)
                result = CliRunner().invoke(program, words)
                assert result.exit_code == 0, f"{page}: {command}\n{result.output}"
                ran += 1
    assert ran >= 8
