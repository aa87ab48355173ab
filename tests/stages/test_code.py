"""What code each stage is made of: import closures, and the lists that DVC compares."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.backbones.architecture import MOBILENET_V2
from pipelines.config.params import load_params
from pipelines.paths import Paths
from pipelines.stages import code
from tests.file_tree import file_tree

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of a few modules: `train` reaches two rooms, `fetch` finds what is a task's own."""
    files = {
        "stages/train.py": "from pipelines.training import loop\n",
        "training/loop.py": "from pipelines.data.images import open_image\n",
        "data/images.py": "import pipelines.errors\n",
        "errors.py": "from pipelines import deep\n",
        "deep.py": "x = 1\n",
        "stages/fetch.py": "import pipelines.tasks\nfrom pipelines.samples import folder\n",
        "stages/prepare.py": "from pipelines.tasks import load_task\n",
        "tasks.py": "import importlib\n",
        "samples/folder.py": "import importlib\n",
        "samples/cats_dogs.py": "from pipelines.samples import brush\n",
        "samples/weld_defect.py": "x = 1\n",
        "samples/brush.py": "x = 1\n",
        "safety/weld_defect.py": "import pipelines.tasks\n",
        "stages/report.py": "x = 1\n",
        "stages/evaluate.py": "from pipelines import drawing\n",
        "drawing.py": "x = 1\n",
    }
    for name, text in files.items():
        file = tmp_path / "pipelines" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def test_closure_follows_imports_and_leaves_out_what_cannot_alter_an_output(project):
    assert code.code_of("train", project) == [
        "pipelines/data/images.py",
        "pipelines/stages/train.py",
        "pipelines/training/loop.py",
    ]


def test_what_is_a_tasks_own_is_on_its_list_and_on_no_other(project):
    assert code.code_of("fetch", project) == [
        "pipelines/samples/folder.py",
        "pipelines/stages/fetch.py",
        "pipelines/tasks.py",
    ]
    painter, brush = "pipelines/samples/cats_dogs.py", "pipelines/samples/brush.py"
    assert code.own_code("fetch", "cats_dogs", "reference", project) == [brush, painter]
    assert code.own_code("prepare", "cats_dogs", "reference", project) == []
    module, painter = "pipelines/safety/weld_defect.py", "pipelines/samples/weld_defect.py"
    assert code.own_code("fetch", "weld_defect", "safety", project) == [module, painter]
    assert code.own_code("prepare", "weld_defect", "safety", project) == [module]


def test_each_task_has_a_list_even_a_plain_one_and_a_removed_task_has_none(project):
    left_over = Paths(project).code_list("fetch", "gone")
    left_over.parent.mkdir(parents=True)
    left_over.write_text("x")
    code.run(Paths(project))
    assert {file.stem for file in left_over.parent.iterdir()} == set(
        load_params(project / "params.yaml").tasks
    )
    assert Paths(project).code_list("fetch", "tomato_leaf").read_text() == "# Nothing of its own.\n"


def test_report_is_made_of_what_draws_its_figures_too(project):
    assert "pipelines/drawing.py" in code.code_of("report", project)


def test_closure_sees_a_lazy_import_and_no_type_checking_block(project):
    file = project / "stage.py"
    file.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from pipelines.data import brush\n"
        "else:\n    from pipelines import drawing\n"
        "def run():\n    from pipelines.data import images\n    import pipelines.deep\n"
    )
    assert code.imported(file, project) == {
        "pipelines/data/images.py",
        "pipelines/deep.py",
        "pipelines/drawing.py",
    }


def test_lists_name_each_file_with_its_hash(project):
    code.run(Paths(project))
    lines = Paths(project).code_list("train").read_text().splitlines()
    sha256 = code.code_sha256(project / "pipelines/data/images.py")
    assert lines[0] == f"{sha256}  pipelines/data/images.py"
    assert len(lines) == 3


def test_a_change_alters_the_lists_of_the_stages_that_reach_it_and_no_other(project):
    paths = Paths(project)

    def lists() -> dict[str, bytes]:
        code.run(paths)
        return file_tree(paths.reports_dir / "code")

    def changed(file: str, text: str) -> set[str]:
        before = lists()
        (project / "pipelines" / file).write_text(text)
        after = lists()
        assert before.keys() == after.keys()
        return {name for name in after if before[name] != after[name]}

    assert changed("data/images.py", "import pipelines.errors\nx = 1\n") == {"train.txt"}
    assert changed("samples/brush.py", "x = 2\n") == {"fetch/cats_dogs.txt"}
    assert (
        changed("samples/cats_dogs.py", "# Words.\nfrom pipelines.samples import brush\n") == set()
    )


@pytest.mark.parametrize(
    "same",
    [
        "# A comment.\ndef area(side):\n    return side * side\n",
        '"""Of squares."""\n\n\ndef area(side):\n    """side: px."""\n    return side * side\n',
        "def area(side):\n    return (\n        side * side  # px\n    )\n",
    ],
)
def test_what_is_only_said_keeps_the_hash(same, tmp_path):
    plain, other = tmp_path / "plain.py", tmp_path / "other.py"
    plain.write_text("def area(side):\n    return side * side\n")
    other.write_text(same)
    assert code.code_sha256(other) == code.code_sha256(plain)


@pytest.mark.parametrize(
    "other",
    [
        "def area(side):\n    return side + side\n",
        "def area(side=1):\n    return side * side\n",
        "async def area(side):\n    return side * side\n",
        "def area(side):\n    'px'\n    'side'\n    return side * side\n",
        "def area(side):\n    return side * side\nWORDS = 'Of squares.'\n",
    ],
)
def test_what_is_done_changes_the_hash(other, tmp_path):
    plain, changed = tmp_path / "plain.py", tmp_path / "other.py"
    plain.write_text("def area(side):\n    return side * side\n")
    changed.write_text(other)
    assert code.code_sha256(changed) != code.code_sha256(plain)


# -- backbones ------------------------------------------------------------------------------------
ENTRY = "from pipelines.backbones.spec import BackboneSpec\nimport pipelines.backbones.bricks\n"
ENTRY += 'SIDE = 3\nfirst = BackboneSpec(name="first")\nsecond = BackboneSpec(name="second")\n'


@pytest.fixture
def families(project: Path) -> Path:
    """The folder of families of a project, with one of two entries."""
    files = {
        "spec.py": "x = 1\n",
        "registry.py": "import pipelines.backbones.spec\n",
        "weights.py": "import pipelines.backbones.spec\n",
        "bricks.py": "x = 1\n",
        "families/net.py": ENTRY,
    }
    for name, text in files.items():
        file = project / "pipelines/backbones" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (project / "pipelines/training/loop.py").write_text("from pipelines.backbones import weights\n")
    return project / "pipelines/backbones/families"


def lists_of(project: Path) -> dict[str, str]:
    """Every list, by its path below reports/code."""
    code.run(Paths(project))
    folder = project / "reports/code"
    return {file.relative_to(folder).as_posix(): file.read_text() for file in folder.rglob("*.txt")}


def test_backbone_has_a_list_of_its_family_and_of_what_only_that_is_made_of(project, families):
    files = [line.split()[1] for line in lists_of(project)["backbones/first.txt"].splitlines()]
    assert files == ["pipelines/backbones/bricks.py", "pipelines/backbones/families/net.py"]


@pytest.mark.parametrize(
    ("file", "text", "changed"),
    [
        # A new entry re-runs nothing, in its family's file or in one of its own.
        ("net.py", ENTRY + 'third = BackboneSpec(name="third")\n', {"third"}),
        ("new.py", 'third = BackboneSpec(name="third")\n', {"third"}),
        ("net.py", ENTRY.replace('name="second"', 'name="second", px=96'), {"second"}),
        ("net.py", ENTRY.replace("SIDE = 3", "SIDE = 5"), {"first", "second"}),
        ("../bricks.py", "x = 2\n", {"first", "second"}),
    ],
)
def test_a_backbone_entry_concerns_itself_alone(file, text, changed, project, families):
    before = lists_of(project)
    (families / file).write_text(text)
    after = lists_of(project)
    assert {name for name in after if after[name] != before.get(name)} == {
        f"backbones/{name}.txt" for name in changed
    }


def test_a_backbone_that_went_has_no_list(project, families):
    assert "backbones/second.txt" in lists_of(project)
    (families / "net.py").write_text('first = BackboneSpec(name="first")\n')
    assert "backbones/second.txt" not in lists_of(project)


def test_entries_that_are_read_are_those_that_are_run():
    from pipelines.backbones.spec import backbones

    assert code.backbone_files(ROOT) == {
        name: f"pipelines/backbones/families/{spec.family}.py" for name, spec in backbones().items()
    }


def test_a_line_has_the_list_of_its_base_and_of_what_cuts_it_out():
    line = MOBILENET_V2.line.replace("c1280", "c960")
    files = {each.split()[1] for each in code.backbone_code(line, ROOT).splitlines()}
    assert {
        "pipelines/backbones/families/searched.py",
        "pipelines/backbones/families/mobilenet_v2.py",
        "pipelines/backbones/inherit.py",
    } <= files
    assert set(code.backbone_code("mobilenet_v2", ROOT).splitlines()) < set(
        code.backbone_code(line, ROOT).splitlines()
    )
    assert line not in code.board_code("mobilenet_v2", ROOT)
    assert code.board_code(line, ROOT) != code.board_code("mobilenet_v2", ROOT)


def test_no_stage_lists_a_family():
    """Else an entry in it would re-run every task."""
    for stage in code.STAGES:
        assert not [file for file in code.code_of(stage, ROOT) if "/families/" in file]


def test_field_of_one_section_concerns_its_own_stage_alone():
    """A new field of a section's class re-runs the stage that takes the section."""
    reached = {stage: set(code.code_of(stage, ROOT)) for stage in code.STAGES}
    for section in ("fetch", "prepare", "audit", "train", "export", "evaluate", "gate"):
        module = f"pipelines/config/{section}.py"
        # The page shows every section, and depends on the whole of params.yaml.
        assert {stage for stage in code.STAGES if module in reached[stage]} == {section, "report"}
    assert [s for s in code.STAGES if "pipelines/config/params.py" in reached[s]] == ["report"]


def test_real_stages_reach_what_they_are_known_to_need():
    reached = {stage: set(code.code_of(stage, ROOT)) for stage in code.STAGES}
    assert "pipelines/training/fit.py" in reached["train"]
    assert "pipelines/serving/predictor.py" in reached["evaluate"]
    assert "pipelines/samples/folder.py" in reached["fetch"] - reached["prepare"]
    assert "pipelines/samples/canvas.py" in code.own_code("fetch", "cats_dogs", "reference", ROOT)
    assert "pipelines/training/fit.py" not in reached["export"] | reached["evaluate"]
    assert not {file for files in reached.values() for file in files} & code.HARMLESS


def test_cell_of_a_board_is_made_by_what_trains_exports_tests_and_times_it():
    files = [line.split()[1] for line in code.board_code("mobilenet_v2", ROOT).splitlines()]
    assert {
        f"pipelines/{name}.py"
        for name in ("search/objective", "training/fit", "export/remedies", "export/latency")
    } <= set(files)
    assert files[-1] == "pipelines/backbones/families/mobilenet_v2.py"
    # What runs, shows and tells of cells alters none of them.
    for name in ("search/board", "search/choice", "plots/board", "commands/board", "config/params"):
        assert f"pipelines/{name}.py" not in files
    assert code.board_code("mobilenet_v2", ROOT) != code.board_code("mobilenet_v1", ROOT)


def test_cell_has_no_code_where_there_is_no_checkout(tmp_path):
    assert code.board_code("mobilenet_v2", tmp_path) == ""
