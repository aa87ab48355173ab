from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipelines.training.checkpoints import (
    Checkpoint,
    drop_checkpoint,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from pipelines.training.fit import OPTIMIZERS, make_optimizer, parameter_groups
from tests.training.toy import same


def checkpoint(epoch: int = 3) -> Checkpoint:
    torch.manual_seed(epoch)
    return Checkpoint(
        phase=1,
        epoch=epoch,
        model={"a.weight": torch.randn(2, 3), "a.counter": torch.tensor(7)},
        best={"a.weight": torch.randn(2, 3), "a.counter": torch.tensor(6)},
        average={},
        optimizer={"0.exp_avg": torch.randn(4), "0.step": torch.tensor(5.0)},
        # Before the first epoch nothing is best; JSON has no infinity of its own.
        progress={"best_value": -math.inf, "stale": 2, "history": [{"epoch": 1, "loss": 1 / 3}]},
    )


def the_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_round_trip_keeps_every_bit(tmp_path):
    before = checkpoint()
    save_checkpoint(tmp_path, "key", before)
    after = load_checkpoint(tmp_path, "key")
    assert after is not None
    assert (after.phase, after.epoch) == (1, 3)
    assert after.progress == before.progress
    for part in ("model", "best", "average", "optimizer"):
        old, new = getattr(before, part), getattr(after, part)
        assert old.keys() == new.keys()
        for name in old:
            assert torch.equal(old[name], new[name])
            assert old[name].dtype == new[name].dtype


def test_same_state_gives_the_same_bytes(tmp_path):
    save_checkpoint(tmp_path / "a", "key", checkpoint())
    save_checkpoint(tmp_path / "b", "key", checkpoint())
    assert the_file(tmp_path / "a").read_bytes() == the_file(tmp_path / "b").read_bytes()


def test_another_key_or_no_file_is_none(tmp_path):
    assert load_checkpoint(tmp_path, "key") is None
    save_checkpoint(tmp_path, "key", checkpoint())
    assert load_checkpoint(tmp_path, "other") is None
    assert load_checkpoint(tmp_path, "key") is not None
    drop_checkpoint(tmp_path)
    assert load_checkpoint(tmp_path, "key") is None


WHOLE = {"key": "key", "phase": 0, "epoch": 1, "progress": {}}


def rewrite(path: Path, header: dict[str, object] | None, name: str = "model/a") -> None:
    metadata = {"checkpoint": json.dumps(header)} if header is not None else None
    save_file({name: torch.ones(1)}, path, metadata=metadata)


def test_damages_below_are_what_keeps_a_file_from_being_read(tmp_path):
    save_checkpoint(tmp_path, "key", checkpoint())
    rewrite(the_file(tmp_path), WHOLE)
    assert load_checkpoint(tmp_path, "key") is not None


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-3]), id="cut short"),
        pytest.param(lambda path: path.write_bytes(b"\xff" * 100), id="noise"),
        pytest.param(lambda path: rewrite(path, None), id="no header"),
        pytest.param(lambda path: rewrite(path, {"phase": 0}), id="header without key"),
        pytest.param(lambda path: rewrite(path, {"key": "key"}), id="header of another version"),
        pytest.param(lambda path: rewrite(path, WHOLE, "strange/a"), id="unknown part"),
    ],
)
def test_damaged_file_is_none(damage, tmp_path):
    save_checkpoint(tmp_path, "key", checkpoint())
    damage(the_file(tmp_path))
    assert load_checkpoint(tmp_path, "key") is None


def test_file_is_safetensors_and_holds_no_pickle(tmp_path):
    save_checkpoint(tmp_path, "key", checkpoint())
    data = the_file(tmp_path).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    # Header and tensors are all there is.
    assert 8 + length + max(v["data_offsets"][1] for k, v in header.items() if k[0] != "_") == len(
        data
    )
    assert not data.startswith((b"PK", b"\x80"))


def test_full_disk_keeps_the_old_checkpoint(tmp_path):
    save_checkpoint(tmp_path, "key", checkpoint(3))
    old = the_file(tmp_path).read_bytes()
    code = (
        "import resource, signal, sys; from pathlib import Path; import torch\n"
        "from pipelines.errors import StorageError\n"
        "from pipelines.training.checkpoints import Checkpoint, save_checkpoint\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "big = Checkpoint(1, 4, {'w': torch.zeros(10_000)}, {}, {}, {})\n"
        "try: save_checkpoint(Path(sys.argv[1]), 'key', big)\n"
        "except StorageError as err: print(err)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "cannot be written" in done.stdout
    assert the_file(tmp_path).read_bytes() == old


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_goes_on_as_if_it_had_never_stopped(name, train_params):
    def start() -> tuple[nn.Linear, torch.optim.Optimizer]:
        torch.manual_seed(1)
        net = nn.Linear(5, 3)
        groups = parameter_groups([(net, 1.0)], 0.05, 0.01)
        return net, make_optimizer(groups, train_params(optimizer=name))

    def step(net: nn.Linear, optimizer: torch.optim.Optimizer, number: int) -> None:
        inputs = torch.randn(4, 5, generator=torch.Generator().manual_seed(number))
        optimizer.zero_grad()
        net(inputs).square().sum().backward()
        optimizer.step()

    straight, optimizer = start()
    for number in range(6):
        step(straight, optimizer, number)
    first, optimizer = start()
    for number in range(3):
        step(first, optimizer, number)
    second, fresh = start()
    second.load_state_dict(first.state_dict())
    restore_optimizer(fresh, optimizer_tensors(optimizer))
    for number in range(3, 6):
        step(second, fresh, number)
    assert same(second, straight)
