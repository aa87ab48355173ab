from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.config.gate import GateParams
from pipelines.errors import BundleError, GateError, MissingDataError
from pipelines.serving.bundle import Bundle, read_bundle
from pipelines.serving.trust import AuditReport
from pipelines.stages import gate

EASY = GateParams(
    min_accuracy=0.0,
    min_macro_f1=0.0,
    min_agreement=0.0,
    max_accuracy_drop=1.0,
    max_recall_drop=1.0,
    max_int8_bytes=10_000,
)


def bounds(**changes: float) -> GateParams:
    return GateParams.model_validate(EASY.model_dump() | changes)


@pytest.fixture
def tested(tested_project):
    return tested_project


@pytest.mark.parametrize(
    ("change", "metric"),
    [
        ({"min_accuracy": 0.99}, "accuracy (int8)"),
        ({"min_macro_f1": 0.99}, "macro_f1 (int8)"),
        ({"min_agreement": 0.99}, "agreement"),
        ({"max_accuracy_drop": 0.0}, "accuracy_drop"),
        ({"max_recall_drop": 0.0}, "max_recall_drop"),
        ({"max_int8_bytes": 1}, "int8 bytes"),
    ],
)
def test_gate_each_bound_holds_on_its_own(tested, change, metric):
    gate.run("tiny", EASY, tested)
    with pytest.raises(GateError) as caught:
        gate.run("tiny", bounds(**change), tested)
    assert caught.value.exit_code == 3
    first, header, *rows = str(caught.value).splitlines()
    assert first.startswith(f"tiny is not released: {metric} is ")
    assert "1 of its demands failed" in first
    assert header.split() == ["metric", "value", "bound"]
    assert len(rows) == 1
    assert rows[0].startswith(f"  {metric}")


def metrics_of(tested) -> dict:
    return json.loads(tested.task("tiny").metrics.read_text())


def test_check_accuracy_drop_and_equality(tested):
    bundle = read_bundle(tested.task("tiny").bundle)
    metrics = metrics_of(tested)
    metrics["accuracy_drop"] = 0.03
    params = bounds(max_accuracy_drop=0.03, min_accuracy=metrics["int8"]["accuracy"])
    assert all(entry.passed for entry in gate.check(metrics, bundle, params))
    metrics["accuracy_drop"] = 0.030001
    failed = [e.metric for e in gate.check(metrics, bundle, params) if not e.passed]
    assert failed == ["accuracy_drop"]


def test_check_fp32_served_is_not_held_to_the_bounds_of_int8(tested):
    bundle = read_bundle(tested.task("tiny").bundle)
    serving = bundle.served.model_copy(update={"precision": "fp32"})
    params = bounds(min_agreement=1.0, max_int8_bytes=1, max_recall_drop=0.0)
    assert not all(entry.passed for entry in gate.check(metrics_of(tested), bundle, params))
    bundle = bundle.model_copy(update={"served": serving})
    found = gate.check(metrics_of(tested), bundle, params)
    assert [entry.metric for entry in found] == ["accuracy (fp32)", "macro_f1 (fp32)"]
    assert all(entry.passed for entry in found)


def test_check_undefined_value_never_passes():
    assert not gate.Check("accuracy", None, 0.0, "at least").passed
    assert not gate.Check("drop", None, 1.0, "at most").passed
    failed = [gate.Check("drop", None, 1.0, "at most")]
    assert "drop is undefined" in gate.refusal("tiny", failed)


def test_gate_refusal_lists_all(tested):
    with pytest.raises(GateError) as caught:
        gate.run("tiny", bounds(min_accuracy=0.99, min_macro_f1=0.99, max_int8_bytes=1), tested)
    assert len(str(caught.value).splitlines()) == 2 + 3


def test_gate_before_evaluate_says_what_to_run(tiny_project):
    with pytest.raises(MissingDataError, match="dvc repro evaluate@tiny"):
        gate.run("tiny", EASY, tiny_project)


@pytest.mark.parametrize("text", ["", "[]", "{}", "{"])
def test_gate_spoilt_metrics(tested, text):
    tested.task("tiny").metrics.write_text(text)
    with pytest.raises(MissingDataError, match=r"metrics\.json"):
        gate.run("tiny", EASY, tested)


def test_gate_metrics_written_by_hand_do_not_open_it(tested):
    metrics = metrics_of(tested)
    metrics["int8"]["accuracy"] = 1.0
    tested.task("tiny").metrics.write_text(json.dumps(metrics))
    with pytest.raises(BundleError, match="speaks of another model"):
        gate.run("tiny", bounds(min_accuracy=0.99), tested)


def test_gate_writes_what_passed_and_nothing_else(tested):
    passed = tested.task("tiny").passed

    def others() -> dict[Path, int]:
        return {
            p: p.stat().st_mtime_ns for p in tested.root.rglob("*") if p.is_file() and p != passed
        }

    before = others()
    gate.run("tiny", EASY, tested)
    assert others() == before
    checks = json.loads(passed.read_text())
    assert [check["metric"] for check in checks][:2] == ["accuracy (int8)", "macro_f1 (int8)"]
    # What passed yesterday does not stand beside today's refusal.
    with pytest.raises(GateError):
        gate.run("tiny", bounds(min_accuracy=0.99), tested)
    assert not passed.exists()


# -- what the audit found -------------------------------------------------------------------------
def audited(tested, **changes) -> AuditReport:
    """Another audit of the same project, in audit.json and in the bundle, as after `evaluate`."""
    files = tested.task("tiny")
    report = AuditReport.model_validate_json(files.audit.read_text())
    scores = [{**report.scores[0].model_dump(), "share": 0.91, "verdict": "shortcut"}]
    document = {**report.model_dump(), "verdict": "shortcut", "scores": scores, **changes}
    report = AuditReport.model_validate(document)
    files.audit.write_text(report.model_dump_json())
    bundle = read_bundle(files.bundle)
    finished = Bundle.model_validate({**bundle.model_dump(), "audit": report})
    files.bundle.write_text(finished.to_json())
    return report


def test_gate_refuses_a_shortcut_whatever_the_metrics(tested):
    audited(tested)
    with pytest.raises(GateError) as caught:
        gate.run("tiny", EASY, tested)
    assert caught.value.exit_code == 3
    first, _, *rows = str(caught.value).splitlines()
    assert first.startswith("tiny is not released: its data are a shortcut. ")
    assert "tasks.tiny.audit.accepted" in first
    assert [row.split() for row in rows] == [["audit:", "border", "0.9100", "below", "0.8000"]]


def test_gate_lets_an_accepted_shortcut_pass_and_says_why(tested, caplog):
    audited(tested, accepted="shown to students only")
    with caplog.at_level("INFO"):
        gate.run("tiny", EASY, tested)
    assert "a shortcut in the data is accepted: shown to students only" in caplog.text


@pytest.mark.parametrize("verdict", ["clean", "suspicious"])
def test_gate_lets_what_is_no_shortcut_pass(tested, verdict):
    audited(tested, verdict=verdict)
    gate.run("tiny", EASY, tested)


def test_gate_audit_that_does_not_decide_refuses_nothing(tested):
    report = audited(tested)
    score = report.scores[0].model_copy(update={"decides": False})
    assert gate._shortcuts(report.model_copy(update={"scores": (score,)})) == []


def test_gate_without_an_audit_says_what_to_run(tested):
    tested.task("tiny").audit.unlink()
    with pytest.raises(MissingDataError, match="dvc repro audit@tiny"):
        gate.run("tiny", EASY, tested)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"task": "tiny"}'])
def test_gate_spoilt_audit(tested, text):
    tested.task("tiny").audit.write_text(text)
    with pytest.raises(MissingDataError, match=r"audit\.json: is no audit report"):
        gate.run("tiny", EASY, tested)


def test_gate_audit_written_by_hand_does_not_open_it(tested):
    before = tested.task("tiny").audit.read_text()
    audited(tested)
    tested.task("tiny").audit.write_text(before)
    with pytest.raises(BundleError, match="the audit is not the one in"):
        gate.run("tiny", EASY, tested)
