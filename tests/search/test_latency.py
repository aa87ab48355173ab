"""This machine's latencies, on a clock that tells what it is told to, and once on the real one."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.config.search import SpaceParams
from pipelines.errors import ConfigError
from pipelines.search import latency
from pipelines.search.block_table import Scope, read_table, write_blocks
from pipelines.search.graphs import Part
from pipelines.search.latency import DeviceTable, Measured, ThisMachine, lowest
from pipelines.search.space import Network, Space

SCOPE = Scope(
    Space.of(
        SpaceParams(
            image_px=(32, 64),
            kernels=(3,),
            squeeze=False,
            expansions=(3, 6),
            widths=(1.0,),
            fewer_blocks=0,
            fused_up_to=0,
        )
    ),
    image_px=64,
    n_classes=3,
    precision="int8",
)
BASE, SMALL = SCOPE.reference, SCOPE.space.smallest
#: Runs by which a second question of a file is told from the first; whole passes.
ASKED_AGAIN = 35 * 200
#: What a call tells that is run for the so-manieth time.
Told = Callable[[Network, int], float]


def cost(part: Part) -> float:
    return 0.05 + part.in_channels * part.hidden * part.in_px**2 / 1e7


def honest(network: Network, _: int = 0) -> float:
    """Whole, a network takes less than its blocks, which have each their own entry."""
    return 0.1 + 0.8 * sum(cost(part) for part in SCOPE.parts_of(network))


class Fake:
    """ONNX Runtime and its clock: a file is what it is of, and running it takes what it costs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, told: Told = honest) -> None:
        self.seconds = 0.0
        self.asked: list[Network | Part] = []
        self._told = told
        monkeypatch.setattr(latency, "network_onnx", lambda network, *_: network)
        monkeypatch.setattr(latency, "part_onnx", lambda part, *_: part)
        monkeypatch.setattr(latency, "asking", self._asking)

    def _asking(self, what: Network | Part) -> Callable[[], None]:
        times = self.asked.count(what)
        self.asked.append(what)
        n_runs = 0

        def run() -> None:
            nonlocal n_runs
            ms = (
                cost(what)
                if isinstance(what, Part)
                else self._told(what, times * ASKED_AGAIN + n_runs)
            )
            n_runs += 1
            self.seconds += ms / 1000

        return run

    def machine(self, folder: Path, table_gap: float = 0.25) -> ThisMachine:
        return ThisMachine(SCOPE, folder, table_gap, lambda: self.seconds)


def test_ratio_is_to_the_base_at_the_tasks_side(tmp_path, monkeypatch):
    machine = Fake(monkeypatch).machine(tmp_path)
    for network, found in zip([SMALL, BASE], machine.measure([SMALL, BASE]), strict=True):
        assert found.is_steady
        assert found.ratio == pytest.approx(honest(network) / honest(BASE))
        assert found.ms == pytest.approx(honest(network))
    assert machine.reference_ms == pytest.approx(honest(BASE))


def test_sum_of_blocks_is_fitted_to_whole_networks(tmp_path, monkeypatch):
    found = Fake(monkeypatch).machine(tmp_path).sum
    assert (found.offset, found.scale) == (pytest.approx(0.1), pytest.approx(0.8))
    assert found.n_anchors == len(SCOPE.anchors)


def lies(network: Network, share: float, until: float = float("inf")) -> Told:
    """That network tells a share of the truth while it is asked for the first so many runs."""
    return lambda each, n: honest(each) * (share if each == network and n < until else 1)


#: No anchor: what is fitted is not what is judged.
NETWORK = next(
    network
    for network in (
        SCOPE.space.network({"image_px": 64, f"s{stage}.expansion": 3}) for stage in (4, 5, 6)
    )
    if network not in SCOPE.anchors
)


@pytest.mark.parametrize("share", [0.3, 0.7, 1.5])
def test_steady_artefact_is_measured_again(tmp_path, monkeypatch, share):
    """Two passes agree, and both are wrong: nothing but the blocks' sum sees it."""
    fake = Fake(monkeypatch, lies(NETWORK, share, until=ASKED_AGAIN))
    (found,) = fake.machine(tmp_path).measure([NETWORK])
    assert found.is_steady
    assert found.ratio == pytest.approx(honest(NETWORK) / honest(BASE))
    assert fake.asked.count(NETWORK) == 2
    # Its blocks too: one of them may be what was wrong.
    assert all(fake.asked.count(part) == 2 for part in SCOPE.parts_of(NETWORK))


def test_artefact_that_stays_is_refused(tmp_path, monkeypatch):
    fake = Fake(monkeypatch, lies(NETWORK, 0.3))
    first, found = fake.machine(tmp_path).measure([SMALL, NETWORK])
    true = honest(NETWORK) / honest(BASE)
    assert first.is_steady
    assert not found.is_steady
    assert found.refused == (
        f"measured as {0.3 * true:.2f} of the reference, its blocks say {true:.2f}"
    )


def test_how_much_a_network_may_differ_is_asked(tmp_path, monkeypatch):
    fake = Fake(monkeypatch, lies(NETWORK, 0.7))
    (found,) = fake.machine(tmp_path, table_gap=0.35).measure([NETWORK])
    assert found.is_steady
    assert fake.asked.count(NETWORK) == 1


def test_passes_that_never_agree_are_refused(tmp_path, monkeypatch):
    def jumps(network: Network, n: int) -> float:
        return honest(network) * (1 + 0.15 * (n // 35 % 2) * (network == NETWORK))

    fake = Fake(monkeypatch, jumps)
    (found,) = fake.machine(tmp_path).measure([NETWORK])
    assert found.refused == "two passes differ by 15%"
    assert fake.asked.count(NETWORK) == 2


def test_who_resumes_measures_no_block_again(tmp_path, monkeypatch):
    machine = Fake(monkeypatch).machine(tmp_path)
    (before,) = machine.measure([NETWORK])
    kept = machine.table_path.read_bytes()
    # A machine that is slower by now: a ratio says the same.
    fake = Fake(monkeypatch, lambda network, _: 3 * honest(network))
    again = fake.machine(tmp_path)
    (after,) = again.measure([NETWORK])
    assert not [each for each in fake.asked if isinstance(each, Part)]
    assert sorted(map(str, fake.asked)) == sorted(map(str, [BASE, NETWORK]))
    assert (after.ratio, after.ms) == (
        pytest.approx(before.ratio),
        pytest.approx(before.ms, rel=1e-3),
    )
    assert again.table_path.read_bytes() == kept


def test_machines_table_is_one_for_a_device(tmp_path, monkeypatch):
    machine = Fake(monkeypatch).machine(tmp_path)
    machine.measure([each for each in SCOPE.anchors])
    found = read_table(machine.table_path, "int8")
    assert found[SCOPE.key(BASE)] == pytest.approx(honest(BASE), abs=1e-4)
    part = SCOPE.parts_of(BASE)[3]
    assert found[SCOPE.key(part)] == pytest.approx(cost(part), abs=1e-4)


def test_no_latency_of_the_smallest_is_one_line(tmp_path, monkeypatch):
    fake = Fake(monkeypatch, lies(SMALL, 0.3))
    machine = fake.machine(tmp_path)
    # An anchor that lies cannot be told from the truth by itself; here the others outvote it.
    with pytest.raises(ConfigError, match="the smallest network of the space: measured as"):
        lowest(machine)


def test_answer_depends_on_no_other_network(tmp_path, monkeypatch):
    def asked(*networks: Network) -> Measured:
        folder = tmp_path / str(len(networks))
        return Fake(monkeypatch).machine(folder).measure(networks)[-1]

    alone, last = asked(NETWORK), asked(BASE, SMALL, NETWORK)
    assert alone.ratio == pytest.approx(last.ratio)


# -- the real clock -------------------------------------------------------------------------------
PAGE = Path(__file__).parents[2] / "docs" / "howto" / "search_device.md"


@pytest.mark.slow
def test_from_files_of_blocks_to_a_latency(tmp_path):
    """The page's script fills a table here, as on a device; its sum is what networks take here."""
    scope = SCOPE
    folder = tmp_path / "blocks"
    write_blocks(scope, folder)
    script = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert script is not None
    (tmp_path / "measure_blocks.py").write_text(script[1], encoding="utf-8")
    command = [sys.executable, "measure_blocks.py", str(folder)]
    for _ in range(2):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    device = DeviceTable.read(folder / "blocks.csv", scope)
    networks = [BASE, NETWORK, SMALL]
    here = ThisMachine(scope, tmp_path, table_gap=1.0).measure(networks)
    for said, measured in zip(device.measure(networks), here, strict=True):
        assert said.ratio == pytest.approx(measured.ratio, rel=0.4)
    assert device.measure([SMALL])[0].ratio < 0.8
