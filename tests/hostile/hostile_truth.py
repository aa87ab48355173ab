"""Hostile files of other kinds than classification: boxes, masks, galleries, and their bundles.

Each door is a folder with a sound picture, where the file that is tried takes its place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.card import DatasetCard, load_card
from pipelines.kinds.detection.prepare import PreparedDetection
from pipelines.kinds.prepare import PreparedKind
from pipelines.kinds.segmentation.prepare import PreparedSegmentation
from pipelines.serving.bundle import read_bundle
from pipelines.serving.gallery import Gallery, Picture, gallery_text, read_gallery
from tests.hostile.changes import Named, damaged
from tests.hostile.hostile_files import jsons
from tests.image_files import encode
from tests.serving import test_detection, test_embedding, test_segmentation

ROOT = Path(__file__).resolve().parents[2]
LABELS = ("helmet", "no_helmet", "wear", "no_wear")
SIZE = (64, 48)
#: x, y, width, height in px.
BOXES = [(4.0 + 12 * place, 6.0, 10.0, 12.0) for place in range(len(LABELS))]
Door = Callable[[bytes], object]


def changed(name: str, sound: str, others: Mapping[str, str]) -> Named:
    """Texts made of a sound one: cut, spoilt, with a number for another; and whole ones."""
    yield from damaged(name, sound.encode(), 11, 60, 4)
    for number, value in enumerate(
        ("nan", "inf", "-1", "1e308", "9" * 5_000, "0x1", "", "\u0661", "1_0", "\0", "\ud800")
    ):
        text = sound.replace("12.0", value)
        yield f"{name}/value-{number}", text.encode(errors="surrogatepass")
    for other, text in others.items():
        yield f"{name}/{other}", text.encode(errors="surrogatepass")
    yield f"{name}/utf16", sound.encode("utf-16")
    yield f"{name}/empty", b""


def coco() -> str:
    categories = [{"id": 7 * number, "name": name} for number, name in enumerate(LABELS)]
    annotations = [
        {"id": number, "image_id": 1, "category_id": 7 * number, "bbox": box}
        for number, box in enumerate(BOXES)
    ]
    images = [{"id": 1, "file_name": "a.png", "width": SIZE[0], "height": SIZE[1]}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    return json.dumps(document)


def cocos() -> Named:
    """Hostile COCO files."""
    sound = coco()
    yield from jsons(sound)
    document = json.loads(sound)
    for part in ("images", "annotations", "categories"):
        first = document[part][0]
        for key in first:
            for number, value in enumerate(
                (None, [], {}, -1, 1e308, "x" * 9_000, True, 2**70, float("inf"))
            ):
                spoiled = [{**first, key: value}, *document[part][1:]]
                yield (
                    f"coco/{part}-{key}-{number}",
                    json.dumps({**document, part: spoiled}).encode(),
                )
    yield from changed("coco", sound, {"twice": sound + sound, "nul": sound + "\0"})


def vocs() -> Named:
    """Hostile Pascal VOC files."""
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin>"
        f"<xmax>{x + width}</xmax><ymax>{y + height}</ymax></bndbox></object>"
        for name, (x, y, width, height) in zip(LABELS, BOXES, strict=True)
    )
    size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></size>"
    sound = f"<annotation><filename>a.png</filename>{size}{objects}</annotation>"
    laughs = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    others = {
        "laughs": f'<!DOCTYPE x [<!ENTITY a0 "ha">{laughs}]><annotation>&a11;</annotation>',
        "outside": '<!DOCTYPE x [<!ENTITY a SYSTEM "/etc/passwd">]><annotation>&a;</annotation>',
        "deep": "<annotation>" + "<a>" * 50_000 + "</a>" * 50_000 + "</annotation>",
        "open": "<annotation>" + "<a>" * 200_000,
        "wide": sound.replace("</annotation>", "<b/>" * 100_000 + "</annotation>"),
        "nothing": "<annotation/>",
        "climb": sound.replace("a.png", "../../../../etc/passwd"),
        "huge": sound.replace(f"<width>{SIZE[0]}", "<width>1e400"),
        "long-name": sound.replace("a.png", "a" * 100_000),
        "processing": "<?xml version='1.0' encoding='utf-7'?>" + sound,
        "unknown-encoding": "<?xml version='1.0' encoding='x-none'?>" + sound,
    }
    yield from changed("voc", sound, others)


def yolos() -> Named:
    """Hostile YOLO files."""
    lines = [
        f"{number} {(x + width / 2) / SIZE[0]} {(y + height / 2) / SIZE[1]} "
        f"{width / SIZE[0]} {height / SIZE[1]}"
        for number, (x, y, width, height) in enumerate(BOXES)
    ]
    sound = "\n".join(lines) + "\n"
    others = {
        "class": sound.replace("0 ", "9" * 5_000 + " ", 1),
        "negative": sound.replace("0 ", "-1 ", 1),
        "outline": "0 " + "0.5 " * 400,
        "long": sound + "0 0.5 0.5 0.1 0.1\n" * 20_000,
        "px": "0 300 200 30 20\n",
        "words": "helmet 0.5 0.5 0.1 0.1\n",
        "superscript": sound.replace("0 ", "² ", 1),
        "arabic": sound.replace("0 ", "\u0660 ", 1),
    }
    yield from changed("yolo", sound, others)


def names() -> Named:
    """Hostile lists of what YOLO's numbers mean."""
    sound = "names:\n" + "".join(f"  {n}: {name}\n" for n, name in enumerate(LABELS))
    others = {
        "list": json.dumps({"names": LABELS}),
        "hole": sound.replace("1:", "9:"),
        "word": sound.replace("1:", "one:"),
        "null": sound.replace("1:", "null:"),
        "both": sound.replace("1:", "'0':"),
        "number": "names: 4",
        "text": "names: helmet",
        "without": "nc: 4",
        "top-list": "[1, 2]",
        "deep": "names: " + "[" * 1_000,
    }
    yield from changed("names", sound, others)


def masks() -> Named:
    """Hostile PNG masks."""
    shape = np.zeros(SIZE[::-1], np.uint8)
    shape[10:30, 20:40] = 255
    sound = encode(Image.fromarray(shape), "PNG")
    yield from damaged("mask", sound, 12, 60, 4)
    picture = Image.fromarray(shape)
    for mode in ("1", "P", "RGB", "RGBA", "LA", "I;16"):
        yield f"mask/mode-{mode}", encode(picture.convert(mode), "PNG")
    yield "mask/grey", encode(Image.fromarray(shape // 2), "PNG")
    yield "mask/index", encode(Image.fromarray(shape // 255 * 7), "PNG")
    yield "mask/small", encode(picture.resize((32, 24)), "PNG")
    yield "mask/jpeg", encode(picture, "JPEG")
    yield "mask/turned", encode(picture.transpose(Image.Transpose.ROTATE_90), "PNG")
    yield "mask/empty", b""


def galleries() -> Named:
    """Hostile gallery.json files."""
    bundle = test_embedding.bundle_of(0.75)
    vectors = np.eye(3, dtype=np.float32)
    pictures = [Picture(path=f"{name}/1.jpg", identity=name) for name in ("rose", "lily", "iris")]
    sound = gallery_text(bundle.task, bundle.files["int8"].sha256, Gallery(pictures, vectors))
    yield from jsons(sound)
    document = json.loads(sound)
    for key in document["pictures"][0]:
        for number, value in enumerate((None, [], {}, -1, "", "x" * 100_000, "\0", "../" * 99)):
            first = {**document["pictures"][0], key: value}
            spoiled = {**document, "pictures": [first, *document["pictures"][1:]]}
            yield f"gallery/{key}-{number}", json.dumps(spoiled).encode()


def bundles() -> Named:
    """Hostile bundle.json files of each kind."""
    sound = {
        "detection": test_detection.bundle_of(["a", "b"], {"a": 0.5, "b": 0.4}),
        "segmentation": test_segmentation.bundle_of("a"),
        "embedding": test_embedding.bundle_of(0.75),
    }
    for kind, bundle in sound.items():
        for name, data in jsons(bundle.model_dump_json()):
            yield f"{name}-{kind}", data


def _door(folder: Path, name: str, kind: PreparedKind, card: DatasetCard) -> Door:
    picture = folder / ("images/a.png" if name.startswith("masks") else "a.png")
    for place in (picture, folder / name):
        place.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(encode(Image.new("RGB", SIZE, (90, 120, 60)), "PNG"))

    def door(data: bytes) -> None:
        (folder / name).write_bytes(data)
        records = kind.records(folder, card)
        assert len(records) == 1

    return door


def door_of(kind: str, folder: Path) -> tuple[Named, Door]:
    """The files of a kind, and the door that they go through."""
    # Nothing else lies there.
    folder = folder / "raw"
    folder.mkdir()
    card = load_card(ROOT / "datasets" / ("polyp" if kind == "masks" else "hard_hat") / "card.yaml")
    match kind:
        case "coco":
            return cocos(), _door(folder, "coco.json", PreparedDetection(), card)
        case "voc":
            return vocs(), _door(folder, "a.xml", PreparedDetection(), card)
        case "yolo":
            (folder / "classes.txt").write_text("\n".join(LABELS), encoding="utf-8")
            return yolos(), _door(folder, "a.txt", PreparedDetection(), card)
        case "names":
            *_, (_, sound) = (each for each in yolos() if each[0] == "sound/yolo")
            (folder / "a.txt").write_bytes(sound)
            return names(), _door(folder, "data.yaml", PreparedDetection(), card)
        case "masks":
            return masks(), _door(folder, "masks/a.png", PreparedSegmentation(), card)
        case "bundles-of-kinds":

            def bundle_door(data: bytes) -> None:
                (folder / "bundle.json").write_bytes(data)
                read_bundle(folder / "bundle.json", verify=False)

            return bundles(), bundle_door
        case "galleries":
            bundle = test_embedding.bundle_of(0.75)

            def door(data: bytes) -> None:
                (folder / "gallery.json").write_bytes(data)
                read_gallery(folder / "gallery.json", bundle)

            return galleries(), door
    raise ValueError(kind)
