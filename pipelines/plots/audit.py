"""The audit as a figure: how far models get that see next to nothing."""

from __future__ import annotations

from matplotlib.figure import Figure

from pipelines.plots.figures import BLUE, GREEN, GREY, ORANGE, png, style
from pipelines.serving.trust import AuditReport, Verdict

_COLOURS: dict[Verdict, str] = {"clean": GREEN, "suspicious": "#E69F00", "shortcut": ORANGE}
_ROW_INCHES = 0.42


def audit_bars(report: AuditReport) -> bytes:
    """One bar an audit with its 95 % interval, beside chance and the probe; bounds as lines."""
    rows = [
        ("chance", report.chance, None, GREY, f"always the {report.constant}"),
        *(
            (
                score.name.replace("_", " "),
                score.macro_f1.value,
                score.macro_f1,
                _COLOURS[score.verdict],
                score.verdict if score.decides else f"({score.verdict})",
            )
            for score in report.scores
        ),
        ("linear probe", report.probe.value, report.probe, BLUE, "frozen backbone"),
    ]
    way = max(report.probe.value - report.chance, 0.0)
    with style():
        figure = Figure(figsize=(7.2, 1.6 + _ROW_INCHES * len(rows)))
        axes = figure.subplots()
        for place, (_, value, interval, colour, remark) in enumerate(rows):
            axes.barh(place, value, height=0.62, color=colour, zorder=2)
            end = value
            if interval is not None:
                axes.plot([interval.low, interval.high], [place, place], color="black", lw=1.4)
                axes.plot([interval.low, interval.high], [place, place], "|", color="black", ms=8)
                end = max(value, interval.high)
            axes.annotate(
                f"{value:.3f}  {remark}",
                (end, place),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontsize=10,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )
        for bound, dash in ((report.suspicious_share, ":"), (report.shortcut_share, "--")):
            axes.axvline(report.chance + bound * way, color=GREY, ls=dash, lw=1.2, zorder=1)
        axes.set_yticks(range(len(rows)), [row[0] for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.42)
        axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
        axes.set_xlabel(
            f"{report.measure} with 95 % interval, {report.folds}-fold by group, train and val\n"
            f"lines: suspicious (dotted, {report.suspicious_share:.0%} of the way to the probe), "
            f"shortcut (dashed, {report.shortcut_share:.0%})\nin brackets: does not decide",
            fontsize=9,
        )
        axes.set_title(f"{report.task}: {report.verdict}")
        return png(figure)
