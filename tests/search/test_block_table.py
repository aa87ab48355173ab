"""Tables of blocks: what is refused, how a sum becomes a latency, and the files to measure."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pipelines.config.search import SpaceParams
from pipelines.errors import ConfigError
from pipelines.search.block_table import Scope, Sum, read_table, write_blocks, write_table
from pipelines.search.latency import DeviceTable, check_target, lowest
from pipelines.search.space import Space
from pipelines.serving.sessions import make_session

SPACE = SpaceParams(
    image_px=(32, 64),
    kernels=(3,),
    squeeze=False,
    expansions=(6,),
    widths=(0.5, 1.0),
    fewer_blocks=0,
    fused_up_to=24,
)
SCOPE = Scope(Space.of(SPACE), image_px=64, n_classes=3, precision="int8")
BASE = SCOPE.reference
BLOCK = "ir_k3_s1_i24_h144_c24_16px-int8"


def cost(part) -> float:
    """Made-up milliseconds."""
    return (1 + part.in_channels * part.hidden * part.in_px**2 / 1e5) / 100


def plain_table(scope: Scope = SCOPE) -> dict[str, float]:
    """Of blocks alone."""
    return {scope.key(part): cost(part) for part in scope.parts}


def total(network, scope: Scope = SCOPE) -> float:
    return sum(cost(part) for part in scope.parts_of(network))


# -- what a table may be --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: expected the columns block,ms, got nothing"),
        ("name,ms\n", "line 1: expected the columns block,ms, got name,ms"),
        (f"block,ms\n{BLOCK},0.1,7\n", "line 2: expected 2 cells, block and ms; got 3"),
        ("block,ms\nconv_1,0.1\n", "line 2: 'conv_1' names no block"),
        (f"block,ms\n{BLOCK[:-4]}fp32,0.1\n", "c24_16px-fp32 was measured in fp32, and this"),
        ("block,ms\nmobilenet_v9-cn@32px-int8,0.1\n", "line 2: names no network: "),
        (f"block,ms\n{BLOCK},\n", f"line 2: {BLOCK}: expected milliseconds above 0, got nothing"),
        (f"block,ms\n{BLOCK},quick\n", f"line 2: {BLOCK}: expected milliseconds above 0, got qui"),
        (f"block,ms\n{BLOCK},-1\n", f"line 2: {BLOCK}: expected milliseconds above 0, got -1"),
        (f"block,ms\n{BLOCK},inf\n", f"line 2: {BLOCK}: expected milliseconds above 0, got inf"),
        (f"block,ms\n{BLOCK},nan\n", f"line 2: {BLOCK}: expected milliseconds above 0, got nan"),
        (
            f"block,ms\n{BLOCK},0.1\n\n{BLOCK},0.2\n",
            f"line 4: {BLOCK} stands twice, with 0.1 and 0.2 ms",
        ),
    ],
)
def test_bad_table_is_one_line_that_names_the_row(tmp_path, text, said):
    path = tmp_path / "phone.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"phone\.csv") as caught:
        read_table(path, "int8")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [None, b"block,ms\n\xff\xfe"])
def test_what_cannot_be_read_is_no_table(tmp_path, data):
    path = tmp_path / "phone.csv"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"phone\.csv: cannot be read as a table of blocks"):
        read_table(path, "int8")


def test_a_spreadsheet_may_have_saved_it(tmp_path):
    path = tmp_path / "phone.csv"
    path.write_bytes(f"\ufeffblock,ms\r\n{BLOCK}, 0.25\r\n".encode())
    assert read_table(path, "int8") == {BLOCK: 0.25}


def test_table_is_what_was_written(tmp_path):
    write_table(tmp_path / "own.csv", plain_table())
    found = read_table(tmp_path / "own.csv", "int8")
    assert found == pytest.approx(plain_table(), abs=1e-5)


# -- a device -------------------------------------------------------------------------------------
def test_table_must_have_every_block_of_the_space_before_a_search_begins(tmp_path):
    table = plain_table()
    lacking = next(name for name in table if name.startswith("er"))
    del table[lacking]
    write_table(tmp_path / "phone.csv", table)
    with pytest.raises(ConfigError) as caught:
        DeviceTable.read(tmp_path / "phone.csv", SCOPE)
    for words in (f"1 of the {len(table) + 1}", lacking, "--write-blocks", f"{lacking}.onnx"):
        assert words in str(caught.value)


def test_table_of_a_larger_space_serves_a_smaller_one(tmp_path):
    whole = {SCOPE.key(each): 2 * total(each) for each in SCOPE.anchors}
    write_table(tmp_path / "phone.csv", plain_table() | whole)
    fewer = SPACE.model_copy(update={"widths": (1.0,), "image_px": (64,)})
    small = dataclasses.replace(SCOPE, space=Space.of(fewer), n_classes=40)
    assert len(small.parts) < len(SCOPE.parts)
    found = DeviceTable.read(tmp_path / "phone.csv", small)
    assert found.reference_ms == pytest.approx(2 * total(BASE), abs=1e-3)
    assert found.sum.n_anchors == len(SCOPE.anchors)


def test_reference_may_have_a_side_that_the_space_has_not(tmp_path):
    scope = dataclasses.replace(SCOPE, image_px=96)
    write_table(tmp_path / "phone.csv", plain_table(scope))
    found = DeviceTable.read(tmp_path / "phone.csv", scope)
    assert found.reference_ms == pytest.approx(total(scope.reference), abs=1e-3)


def test_measured_is_the_sum_beside_the_references(tmp_path):
    write_table(tmp_path / "phone.csv", plain_table())
    source = DeviceTable.read(tmp_path / "phone.csv", SCOPE)
    networks = [BASE, SCOPE.space.smallest, SCOPE.space.largest]
    for network, found in zip(networks, source.measure(networks), strict=True):
        assert found.ms == pytest.approx(total(network), rel=1e-3)
        assert found.ratio == pytest.approx(total(network) / total(BASE), rel=1e-3)
        assert (found.gap, found.source, found.is_steady) == (0, "table", True)


@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (0.3, 0.8), (-0.02, 1.4)])
def test_whole_networks_tell_offset_and_scale(offset, scale):
    table = plain_table()
    table |= {SCOPE.key(each): offset + scale * total(each) for each in SCOPE.anchors}
    found = Sum.fitted(SCOPE, table)
    assert (found.offset, found.scale) == (pytest.approx(offset), pytest.approx(scale))
    assert found.ms(BASE) == pytest.approx(offset + scale * total(BASE))


def test_one_whole_network_tells_a_scale():
    table = plain_table() | {SCOPE.key(BASE): 3 * total(BASE)}
    found = Sum.fitted(SCOPE, table)
    assert (found.offset, found.scale, found.n_anchors) == (0, pytest.approx(3), 1)


def test_a_network_that_lies_moves_the_fit_little():
    """As shares: the largest network is no more of a witness than the smallest."""
    table = plain_table()
    table |= {SCOPE.key(each): total(each) for each in SCOPE.anchors}
    table[SCOPE.key(SCOPE.space.largest)] *= 1.2
    found = Sum.fitted(SCOPE, table)
    assert found.ms(SCOPE.space.smallest) == pytest.approx(total(SCOPE.space.smallest), rel=0.05)


def test_whole_networks_that_contradict_their_blocks_are_refused(tmp_path):
    table = plain_table() | {SCOPE.key(each): 1 / total(each) for each in SCOPE.anchors}
    write_table(tmp_path / "phone.csv", table)
    with pytest.raises(ConfigError, match="do not take longer where the sum of their blocks does"):
        DeviceTable.read(tmp_path / "phone.csv", SCOPE)


# -- the least ------------------------------------------------------------------------------------
def test_least_latency_may_be_of_fused_blocks(tmp_path):
    table = {name: ms * (0.1 if name.startswith("er") else 1) for name, ms in plain_table().items()}
    write_table(tmp_path / "phone.csv", table)
    source = DeviceTable.read(tmp_path / "phone.csv", SCOPE)
    plain, *_ = source.measure([SCOPE.space.smallest])
    assert lowest(source).ratio < plain.ratio


def test_target_below_the_smallest_is_one_line_that_says_what_it_reaches(tmp_path):
    write_table(tmp_path / "phone.csv", plain_table())
    source = DeviceTable.read(tmp_path / "phone.csv", SCOPE)
    least = lowest(source)
    assert check_target(source, least.ratio) == least
    with pytest.raises(ConfigError, match="below the smallest network of the space") as caught:
        check_target(source, least.ratio * 0.9)
    assert f"{least.ratio:.3g}" in str(caught.value)
    assert f"{least.ms:.3g} ms" in str(caught.value)


# -- files to measure -----------------------------------------------------------------------------
FEW = Scope(
    Space.of(SPACE.model_copy(update={"widths": (1.0,), "image_px": (32,), "fused_up_to": 0})),
    image_px=32,
    n_classes=3,
    precision="int8",
)


def test_folder_has_a_file_a_row_and_a_table_to_fill(tmp_path):
    said = write_blocks(FEW, tmp_path / "blocks")
    header, *rows = (tmp_path / "blocks" / "blocks.csv").read_text().splitlines()
    assert header == "block,ms"
    assert [row[-1] for row in rows] == [","] * len(rows)
    names = [row[:-1] for row in rows]
    assert {path.stem for path in (tmp_path / "blocks").glob("*.onnx")} == set(names)
    assert len(names) == len(FEW.parts) + len(FEW.anchors)
    assert said.startswith(f"{len(FEW.parts)} blocks and {len(FEW.anchors)} whole network")
    for name in names:
        make_session((tmp_path / "blocks" / f"{name}.onnx").read_bytes())
    with pytest.raises(ConfigError, match=f"{names[0]}: expected milliseconds above 0"):
        read_table(tmp_path / "blocks" / "blocks.csv", "int8")


def test_folder_that_holds_something_stays(tmp_path):
    kept = tmp_path / "blocks" / "blocks.csv"
    kept.parent.mkdir()
    kept.write_text("two hours of measuring")
    with pytest.raises(ConfigError, match="is there already"):
        write_blocks(FEW, kept.parent)
    assert kept.read_text() == "two hours of measuring"


def test_anchors_are_the_same_for_who_resumes():
    again = Scope(Space.of(SPACE), SCOPE.image_px, SCOPE.n_classes, SCOPE.precision)
    assert again.anchors == SCOPE.anchors
    assert {SCOPE.space.smallest, SCOPE.space.largest, BASE} <= set(SCOPE.anchors)
    assert np.ptp([total(each) for each in SCOPE.anchors]) > 0
