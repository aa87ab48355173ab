"""`fieldlens train TASK --recipe`: a model beside the task's own, and what is said of the two."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines import cli
from pipelines.config.params import load_params
from pipelines.paths import Paths, RecipePaths
from pipelines.training import fit
from pipelines.training.float_model import load_float_model
from pipelines.training.teachers import read_logits
from tests.file_tree import file_tree
from tests.processes import ROOT

#: A training of a second, whatever the task's own.
QUICK = """\
# Nobody's.
train:
  backbone: mobilenet_v3_small
  weights: none
  image_px: 32
  strategy: full
  views: 1
  batch_size: 8
  head_phase: {epochs: 1}
  tail_phase: {epochs: 1}
"""


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "my own.yaml"
    path.write_text(QUICK, encoding="utf-8")
    return path


@pytest.fixture
def project(toy_project, prepared_task, monkeypatch) -> Path:
    monkeypatch.setenv("FIELDLENS_WORKERS", "1")
    return toy_project


@pytest.fixture
def train(project, prepared_task, capsys):
    """Runs the verb; gives exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(["train", prepared_task, "--root", str(project), *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def test_a_recipes_model_stands_beside_the_tasks_own(train, recipe, project, prepared_task):
    files = Paths(project).task(prepared_task)
    params = project / "params.yaml"
    before = file_tree(project)
    code, said, _ = train("--recipe", recipe)
    assert code == 0
    made = files.recipes_dir / "my_own"
    figures = r"val_loss \d\.\d{3}, val_accuracy [01]\.\d{3}, val_macro_f1 [01]\.\d{3}"
    assert re.search(rf"^{prepared_task} by .*my own\.yaml: {figures} \(\d+ images\)", said)
    assert "The task has no model of its own to compare with." in said
    meta, _, _ = load_float_model(made / "float")
    assert (meta.task, meta.backbone, meta.image_px) == (prepared_task, "mobilenet_v3_small", 32)
    assert (made / "recipe.yaml").read_text() == QUICK
    assert len((made / "history.csv").read_text().splitlines()) == 1 + 2
    assert {path.name for path in made.iterdir()} == {
        "float",
        "history.csv",
        "recipe.yaml",
        "training",
    }
    after = file_tree(project)
    new = {name for name in after if name not in before}
    folder = str(made.relative_to(project))
    assert all(name.startswith((folder, ".cache")) for name in new), new
    assert all(after[name] == before[name] for name in before if not name.startswith(".cache"))

    # With a model of its own, which stays.
    text = params.read_text()
    tuned = load_params(params).task(prepared_task).train
    assert tuned.backbone == "mobilenet_v2"
    code, _, _ = train("--recipe", recipe, "--out", project / "elsewhere")
    assert code == 0
    (project / "elsewhere/float").rename(files.float_dir)
    kept = file_tree(files.float_dir)
    code, said, _ = train("--recipe", recipe)
    assert code == 0
    assert re.search(rf"\nThe task's own model, same images: {figures}\.\n$", said)
    assert said.count(re.search(figures, said)[0]) == 2, "the same training, twice"
    assert file_tree(files.float_dir) == kept
    assert params.read_text() == text


def test_a_model_of_another_split_is_not_compared_with(train, recipe, project, prepared_task):
    files = Paths(project).task(prepared_task)
    assert train("--recipe", recipe, "--out", project / "elsewhere")[0] == 0
    files.float_dir.parent.mkdir(parents=True)
    (project / "elsewhere/float").rename(files.float_dir)
    text = files.float_meta.read_text()
    files.float_meta.write_text(re.sub(r'"data_sha256": "\w{4}', '"data_sha256": "0000', text))
    code, said, _ = train("--recipe", recipe)
    assert code == 0
    assert "of other images or another split: not compared" in said


def test_a_killed_one_goes_on_and_leaves_the_old_folder_and_the_tasks_checkpoint(
    train, recipe, project, prepared_task, monkeypatch
):
    files = Paths(project).task(prepared_task)
    made = files.recipes_dir / "my_own"
    (files.checkpoint_dir).mkdir(parents=True)
    (files.checkpoint_dir / "checkpoint.safetensors").write_bytes(b"half done")
    assert train("--recipe", recipe)[0] == 0
    expected = file_tree(made)
    save, saved = fit.save_checkpoint, []

    def save_then_stop(*arguments):
        save(*arguments)
        saved.append(arguments)
        if len(saved) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(fit, "save_checkpoint", save_then_stop)
    assert train("--recipe", recipe)[0] == cli.EXIT_INTERRUPTED
    assert file_tree(made) == expected
    assert train("--recipe", recipe)[0] == 0
    assert len(saved) == 2, "one epoch was done already"
    assert file_tree(made) == expected
    assert (files.checkpoint_dir / "checkpoint.safetensors").read_bytes() == b"half done"
    assert not RecipePaths(project, prepared_task, "my_own", made).checkpoint_dir.exists()


def test_a_recipes_model_teaches_the_next_one(train, recipe, project, prepared_task, tmp_path):
    assert train("--recipe", recipe)[0] == 0
    teacher = f"models/{prepared_task}/recipes/my_own/float"
    taught = tmp_path / "taught.yaml"
    taught.write_text(
        f"{QUICK}  width: 1.0\n  distill: {{teacher: {teacher}, temperature: 2, weight: 0.5}}\n"
    )
    assert train("--recipe", taught)[0] == 0
    meta, _, _ = load_float_model(Paths(project).task(prepared_task).recipes_dir / "taught/float")
    _, _, sha256 = load_float_model(project / teacher)
    assert meta.teachers_sha256 == (sha256,)
    [kept] = Paths(project).teachers_dir.iterdir()
    logits = read_logits(kept)
    assert logits.labels == list(meta.labels)
    assert len(logits.paths) == meta.n_images["train"]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("  views: 1", "  veiws: 1", "bad.yaml:7: train.veiws: Extra inputs"),
        ("v3_small", "v9", "bad.yaml, laid over surface: params.yaml: train.backbone: there is no"),
        ("  views: 1", "  optimizer: lion", "there is no optimiser 'lion'"),
        (
            "  views: 1",
            "  distill: {teacher: nobody, temperature: 2, weight: 1}",
            "train.distill.teacher: there is no teacher nobody",
        ),
    ],
)
def test_a_recipe_that_cannot_be_is_one_line_and_leaves_nothing(
    old, new, says, train, project, tmp_path
):
    bad = tmp_path / "bad.yaml"
    bad.write_text(QUICK.replace(old, new))
    code, said, complaint = train("--recipe", bad)
    assert (code, said) == (2, "")
    assert says in complaint.splitlines()[-1]
    assert not list(project.glob("models/*/recipes/*"))


def test_what_is_not_a_recipes_folder_is_not_replaced(train, recipe, project, prepared_task):
    files = Paths(project).task(prepared_task)
    before = file_tree(project)
    for place in (project, files.raw_dir, project / "params.yaml"):
        code, _, complaint = train("--recipe", recipe, "--out", place)
        assert code == 2
        assert "is no folder of a recipe's, and would be replaced" in complaint
        assert complaint.count("\n") == 1
    code, _, complaint = train("--recipe", project / "none.yaml")
    assert code == 2
    assert "--recipe: there is no file" in complaint
    code, _, complaint = train("--out", project / "new")
    assert code == 2
    assert "--out: goes with --recipe alone" in complaint
    assert file_tree(project) == before


def test_an_ablation_is_trained_by_the_shipped_recipe_and_a_slip_in_its_name_is_one_line(
    train, project, prepared_task, tmp_path
):
    text = (ROOT / "recipes/ablation.yaml").read_text(encoding="utf-8")
    path = tmp_path / "ablation.yaml"
    path.write_text(re.sub(r"tail_phase: {epochs: \d+", "tail_phase: {epochs: 1", text))
    code, _, _ = train("--recipe", path)
    assert code == 0
    made = Paths(project).task(prepared_task).recipes_dir / "ablation"
    meta, model, _ = load_float_model(made / "float")
    assert (meta.backbone, meta.width) == ("mobilenet_v2_no_shortcuts", 0.5)
    assert not any(block.use_res_connect for block in model.blocks[1:-1])

    path.write_text(text.replace("no_shortcuts", "no_shortcut"))
    code, said, err = train("--recipe", path)
    assert (code, said) == (2, "")
    assert err.count("\n") == 1
    assert "train.backbone: there is no backbone 'mobilenet_v2_no_shortcut'" in err
    assert "mobilenet_v2_no_shortcuts" in err
