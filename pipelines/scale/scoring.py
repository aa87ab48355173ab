"""Answers to many pictures, a part at a time, by one process or several.

A part is a few hundred pictures and a file of their answers. Its name holds a hash of the model and
of the pictures, so that a call that was killed goes on where it was, and one with another model or
another list does not take up what is not its own. Memory is that of a part and of the names.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from pipelines.atomic import file_sha256, new_file
from pipelines.columns import uncalculated
from pipelines.errors import CorruptImageError, PipelineError
from pipelines.scale import coco
from pipelines.scale.inputs import Input, Inputs, read_input
from pipelines.serving.answer import Answer, ServedKind
from pipelines.serving.bundle import Bundle
from pipelines.serving.gallery import gallery_file
from pipelines.serving.kinds import served_kind
from pipelines.serving.predictor import Predictor
from pipelines.serving.sessions import Precision

if TYPE_CHECKING:
    import pyarrow

Row: TypeAlias = dict[str, Any]
A = TypeVar("A", bound=Answer)
#: Parts in work and waiting, a worker.
_WAITING = 2
#: Beside the answer's own columns.
_OOD, _SCORE, _ERROR = "is_ood", "ood_score", "error"


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked of which model; plain values that cross to another process.

    Attributes:
        bundle: a bundle.json.
        anonymous: ask stores as nobody.
        boxes: of COCO, which; None for the cells of a table.
    """

    bundle: Path
    precision: Precision
    anonymous: bool = False
    boxes: coco.Which | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """What a call has come to."""

    n_images: int
    n_errors: int
    n_ood: int
    #: Parts that an earlier call had made.
    n_kept: int


class Scorer:
    """A predictor that answers a part; made once a process."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.predictor: Predictor[Answer] = Predictor.load(job.bundle, job.precision)

    def __call__(self, inputs: Sequence[Input], target: Path) -> None:
        """Write the answers to some pictures; the file is whole or not there."""
        schema = schema_of(self.predictor.bundle, self.job)
        write_rows(target, [self.row(each) for each in inputs], schema)

    def row(self, each: Input) -> Row:
        """The answer to a picture by column; without one, the reason."""
        predictor = self.predictor
        # A name of bytes that are no UTF-8 has no place in a table.
        path = each.name.encode(errors="surrogateescape").decode(errors="replace")
        try:
            source = read_input(each, anonymous=self.job.anonymous)
            opened = predictor.opened(source, name=each.name)
            pixels = predictor.pixels(opened.rgb, name=each.name)
        except CorruptImageError as err:
            return {"path": path, _ERROR: err.reason}
        said = predictor.answer(pixels, geometry=predictor.geometry(opened))
        if self.job.boxes is None:
            cells = typed(predictor.kind, said, predictor.bundle)
        else:
            cells = coco.cells_of(said, predictor.bundle, opened.size, self.job.boxes)
        return {"path": path, **cells, _OOD: said.is_ood, _SCORE: said.ood_score}


def typed(kind: ServedKind[A], said: A, bundle: Bundle) -> Row:
    """An answer by column: numbers as numbers, None where there is none."""
    numbers = set(kind.numbers(bundle))
    cells = zip(kind.columns(bundle), kind.cells(said, bundle), strict=True)
    return {
        name: cell if name not in numbers else float(cell) if cell else None for name, cell in cells
    }


def schema_of(bundle: Bundle, job: Job) -> pyarrow.Schema:
    """The columns of the answers, the same whatever they are."""
    import pyarrow

    told = {"task": bundle.task, "model_sha256": bundle.files[job.precision].sha256}
    if job.boxes is None:
        kind = served_kind(bundle.kind)
        numbers = set(kind.numbers(bundle))
        cells = [
            (name, pyarrow.float64() if name in numbers else pyarrow.string())
            for name in kind.columns(bundle)
        ]
    else:
        cells = [
            (coco.WIDTH, pyarrow.int32()),
            (coco.HEIGHT, pyarrow.int32()),
            (coco.ANNOTATIONS, pyarrow.string()),
        ]
        told[coco.CATEGORIES] = json.dumps(coco.categories_of(bundle))
    return pyarrow.schema(
        [
            ("path", pyarrow.string()),
            *cells,
            (_OOD, pyarrow.bool_()),
            (_SCORE, pyarrow.float64()),
            (_ERROR, pyarrow.string()),
        ],
        metadata=told,
    )


def write_rows(target: Path, rows: Sequence[Row], schema: pyarrow.Schema) -> None:
    """A Parquet file of rows, whole or not there."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist(list(rows), schema=schema)
    with new_file(target) as path:
        pyarrow.parquet.write_table(table, path)


# -- parts ----------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Part:
    """Pictures that are answered together, and where."""

    inputs: Inputs
    target: Path


def parts_of(inputs: Inputs, bundle: Bundle, job: Job, folder: Path, size: int) -> list[Part]:
    """The parts of a list of pictures, in its order.

    Args:
        folder: where their answers go.
        size: most pictures of a part.
    """
    model = [bundle.files[job.precision].sha256, bundle.model_dump_json()]
    if job.boxes is not None:
        model.append(job.boxes)
    gallery = gallery_file(job.bundle.parent)
    if gallery.is_file():
        # Whoever uses the model fills it meanwhile, and another one is near to other pictures.
        model.append(file_sha256(gallery))
    found = []
    for number, start in enumerate(range(0, len(inputs), size)):
        chunk = inputs[start : start + size]
        said = json.dumps([*model, [(i.name, i.location) for i in chunk]])
        key = hashlib.sha256(said.encode(errors="surrogateescape")).hexdigest()[:16]
        found.append(Part(chunk, folder / f"{number:06d}-{key}.parquet"))
    return found


def score_parts(
    job: Job, parts: Sequence[Part], n_workers: int, scorer: type[Scorer] = Scorer
) -> Iterator[Part]:
    """Each part, after it has been answered; in no order where there are several workers.

    Args:
        n_workers: processes; 1 works in this one.
        scorer: what answers a part, made once a process.

    Raises:
        PipelineError: if a worker was ended from outside; what is done is kept.
    """
    if n_workers == 1 or len(parts) < 2:
        here = scorer(job)
        for part in parts:
            here(part.inputs, part.target)
            yield part
        return
    pool = ProcessPoolExecutor(
        n_workers, mp_context=get_context("spawn"), initializer=_start, initargs=(scorer, job)
    )
    waiting: dict[Future[None], Part] = {}
    left = iter(parts)
    try:
        while True:
            for part in islice(left, n_workers * _WAITING - len(waiting)):
                waiting[pool.submit(_score, part)] = part
            if not waiting:
                return
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                future.result()
                yield waiting.pop(future)
    except BrokenProcessPool as err:
        raise PipelineError(
            "score: a worker process was ended from outside, perhaps for want of memory. What is "
            "done is kept: run the same command again, with fewer --workers."
        ) from err
    finally:
        pool.shutdown(cancel_futures=True)


#: Of a worker process.
_SCORER: Callable[[], Scorer] | None = None


def _start(scorer: type[Scorer], job: Job) -> None:
    # Made with the first part: what fails while a process starts, a pool takes for its end.
    global _SCORER
    _SCORER = cache(partial(scorer, job))


def _score(part: Part) -> None:
    assert _SCORER is not None  # `_start` has run in this process
    _SCORER()(part.inputs, part.target)


# -- the whole ------------------------------------------------------------------------------------
Tables: TypeAlias = "Callable[[], Iterator[pyarrow.Table]]"


def _write_parquet(path: Path, schema: pyarrow.Schema, tables: Tables) -> None:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetWriter(path, schema) as file:
        for table in tables():
            file.write_table(table)


def _write_csv(path: Path, schema: pyarrow.Schema, tables: Tables) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.DictWriter(stream, schema.names, lineterminator="\n")
        rows.writeheader()
        for table in tables():
            rows.writerows(_as_text(row) for row in table.to_pylist())


#: By what its name ends in, how a file is written: a part at a time, whatever their number.
_WRITERS = {".parquet": _write_parquet, ".csv": _write_csv, ".json": coco.write}
#: What the answers' file may end in.
FORMS = tuple(_WRITERS)


def _as_text(row: Row) -> Row:
    return {
        name: uncalculated(value) if name == "path" else "" if value is None else _cell(value)
        for name, value in row.items()
    }


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def join(parts: Sequence[Part], out: Path, n_kept: int) -> Scored:
    """Put the parts' answers into one file, of a form by its name, a part at a time."""
    import pyarrow.compute
    from pyarrow.parquet import read_schema, read_table

    def tables() -> Iterator[pyarrow.Table]:
        return (read_table(part.target) for part in parts)

    with new_file(out) as path:
        _WRITERS[out.suffix.lower()](path, read_schema(parts[0].target), tables)
    n_images = n_errors = n_ood = 0
    for part in parts:
        table = read_table(part.target, columns=[_OOD, _ERROR])
        n_images += table.num_rows
        n_errors += table.num_rows - table[_ERROR].null_count
        n_ood += pyarrow.compute.sum(table[_OOD]).as_py() or 0
    return Scored(n_images, n_errors, n_ood, n_kept)
