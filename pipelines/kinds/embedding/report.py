"""What the pages show of an embedding."""

from __future__ import annotations

from pipelines.kinds.shown import NOWHERE, Figure, Shown, Table, abstention, served
from pipelines.serving.embedding import SAME

SHOWN = Shown(
    title="Embedding",
    headline={"EER": "eer", "MAP@R": "map_at_r", "Recall@1": "recall_at_1"},
    columns={
        "Recall@1": served("recall_at_1"),
        "MAP@R": served("map_at_r"),
        "EER": served("eer"),
        "Chance recall@1": Figure("bundle.audit.chance"),
    },
    how="Of identities that no training has seen; each picture is asked for among the others of "
    "the test split. Recall@k: whether one of the k nearest is of the same identity; MAP@R: mean "
    "average precision among the nearest R, of which R could be right; EER: where as many pairs "
    "of two identities are taken for one as pairs of one for two; lower is better. Chance: "
    "one vector for all pictures of train and val, on which the blind distances are measured.",
    why="Recall@1, because the nearest picture is the answer; MAP@R, because it tells models "
    "apart that all find one; the EER, because a pair may be asked instead of a gallery.",
    tables=(
        Table(
            "Neighbours and distances",
            "Up to which distance two pictures are called the same: where both errors are equal on "
            "val, or where the share of the pairs of two identities that was asked for is told "
            "apart. Both errors are of the test split.",
            {
                "recall@5": served("recall_at_5"),
                "same up to": Figure("same_up_to"),
                "val pairs of one found": Figure(f"bundle.operating_points.{SAME}.sensitivity"),
                "val pairs of two told apart": Figure(
                    f"bundle.operating_points.{SAME}.specificity"
                ),
                "false matches": served("false_match"),
                "false non-matches": served("false_non_match"),
                "identities": Figure("n_identities"),
                "pictures asked for": Figure("n_asked"),
            },
        ),
        abstention(NOWHERE),
    ),
)
