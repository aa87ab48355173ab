"""Archives, YAML, JSON and ONNX files that nobody honest made."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import struct
import tarfile
import zipfile
import zlib

import numpy as np
from inflate64 import Deflater

from tests.hostile.changes import Named, damaged, patched, spoilt

_NAMES = (
    *("../evil.jpg", "/evil.jpg", "a/../../evil.jpg", "..\\evil.jpg", "C:\\evil.jpg"),
    *("//host/evil.jpg", "a/" * 80 + "deep.jpg", "n" * 300 + ".jpg", "a\0b.jpg"),
    *("\u202egpj.exe", ".hidden.jpg", "a/./b.jpg"),
    *("", "/", "..", "a//b.jpg", "con.jpg", "a\nb.jpg", "records.csv/../../evil.csv", "~/evil.jpg"),
)
_TAR_KINDS = {
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
    "device": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
    "pipe": tarfile.FIFOTYPE,
    "sparse": tarfile.GNUTYPE_SPARSE,
    "unknown": b"Z",
}
_ZIP_KINDS = {
    "deflate": zipfile.ZIP_DEFLATED,
    "bzip2": zipfile.ZIP_BZIP2,
    "lzma": zipfile.ZIP_LZMA,
}


def zip_of(*members: tuple[str | zipfile.ZipInfo, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def tar_of(*members: tuple[str | tarfile.TarInfo, bytes], mode: str = "w:") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in members:
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def sound_archives() -> dict[str, bytes]:
    draw = np.random.default_rng(7)
    files = [(f"{label}/{n}.jpg", draw.bytes(700)) for label in ("red", "blue") for n in range(3)]
    return {
        "stored.zip": zip_of(*files),
        "deflated.zip": zip_of(*files, kind=zipfile.ZIP_DEFLATED),
        "plain.tar": tar_of(*files),
        "tar.gz": tar_of(*files, mode="w:gz"),
        "tar.bz2": tar_of(*files, mode="w:bz2"),
        "tar.xz": tar_of(*files, mode="w:xz"),
    }


def broken_archives() -> Named:
    for name, data in sound_archives().items():
        yield f"sound/{name}", data
        for part in range(1, 16):
            yield f"cut/{part}-{name}", data[: len(data) * part // 16]
        draw = np.random.default_rng([8, len(data)])
        for number in range(14):
            yield f"flip/{number}-{name}", spoilt(data, draw, 1 + number)
        yield f"twice/{name}", data + data
        yield f"behind/{name}", data + b"\0" * 700 + b"junk" * 300


def named_archives() -> Named:
    for number, name in enumerate(_NAMES):
        if "\0" not in name:
            yield f"name/{number}.tar", tar_of((name, b"x"))
        if not name:
            continue  # zipfile does not write it.
        yield f"name/{number}.zip", zip_of((name, b"x"))
        yield f"name/{number}-late.zip", zip_of(("red/a.jpg", b"x"), (name, b"x"))
    for kind, code in _TAR_KINDS.items():
        for target in ("/etc/passwd", "../../evil.jpg", "red/a.jpg"):
            member = special("red/link.jpg", code, target)
            yield f"kind/{kind}-{target.count('/')}.tar", tar_of(("red/a.jpg", b"x"), (member, b""))
    linked = special("red", tarfile.SYMTYPE, "/tmp")
    yield "kind/through-link.tar", tar_of((linked, b""), ("red/evil.jpg", b"x"))
    for mode in (0o120777, 0o020666, 0o010666, 0o060666):
        member = zipfile.ZipInfo("red/link.jpg")
        member.external_attr = mode << 16
        yield f"kind/{mode:o}.zip", zip_of((member, b"/etc/passwd"))
    yield "double/tar", tar_of(("a.jpg", b"1"), ("a.jpg", b"2"))
    yield "double/folder.tar", tar_of(("a.jpg", b"1"), ("a.jpg/b.jpg", b"2"))
    yield "double/spelling.tar", tar_of(("r/a.jpg", b"1"), ("r/./a.jpg", b"2"))
    yield "nested/zip.zip", zip_of(("inner.zip", zip_of(("../evil.jpg", b"x"))))
    yield "nested/zip.jpg.zip", zip_of(("red/inner.jpg", zip_of(("a.jpg", b"x"))))
    yield "nested/gz.gz", gzip.compress(gzip.compress(tar_of(("a.jpg", b"x"))))


def lying_archives() -> Named:
    whole = zip_of(("a.jpg", b"x" * 500), kind=zipfile.ZIP_DEFLATED)
    central, end = whole.index(b"PK\1\2"), whole.index(b"PK\5\6")
    for offset, form in ((10, "<H"), (16, "<I"), (20, "<I"), (24, "<I"), (28, "<H"), (42, "<I")):
        for value in (0, 9, 99, 2**16 - 1, 2**32 - 1):
            field = value % 2 ** (8 * struct.calcsize(form))
            yield f"field/{offset}-{value}.zip", patched(whole, central + offset, form, field)
    for offset, form in ((8, "<H"), (10, "<H"), (12, "<I"), (16, "<I"), (20, "<H")):
        for value in (0, 2**16 - 1, 2**31 - 1, 2**32 - 1):
            field = value % 2 ** (8 * struct.calcsize(form))
            yield f"end/{offset}-{value}.zip", patched(whole, end + offset, form, field)
    tar = tar_of(("a.jpg", b"x" * 500))
    sizes = (b"77777777777", b"-0000000001", b"\x80" + b"\xff" * 10, b"          9", b"abcdefghijk")
    for size in sizes:
        for kind in b"0LKxgS":
            made = patched(tar, 124, "11s", size)
            # A field of the header, and its check sum over blanks in the place of this.
            made = patched(patched(made, 156, "B", kind), 148, "8s", b" " * 8)
            made = patched(made, 148, "8s", f"{sum(made[:512]):06o}\0 ".encode())
            yield f"size/{size[:4]!r}-{chr(kind)}.tar", made


def archive_bombs() -> Named:
    zeros = bytes(150_000_000)
    yield "bomb/deflate.zip", zip_of(("a.jpg", zeros), kind=zipfile.ZIP_DEFLATED)
    for name, kind in _ZIP_KINDS.items():
        whole = zip_of(("a.jpg", zeros), kind=kind)
        # A member that says it holds 100 bytes.
        yield f"bomb/lying-{name}.zip", patched(whole, whole.index(b"PK\1\2") + 24, "<I", 100)
    deflater = Deflater()
    wide = zip_of(("a.jpg", deflater.deflate(zeros) + deflater.flush()))
    for magic, at, n_bytes in ((b"PK\3\4", 8, 22), (b"PK\1\2", 10, 24)):
        # Deflate64, and again 100 bytes.
        wide = patched(wide, wide.index(magic) + at, "<H", 9)
        wide = patched(wide, wide.index(magic) + n_bytes, "<I", 100)
    yield "bomb/lying-deflate64.zip", wide
    tar = tar_of(("a.jpg", zeros))
    yield "bomb/tar.gz", gzip.compress(tar, 1)
    yield "bomb/tar.bz2", bz2.compress(tar)
    yield "bomb/tar.xz", lzma.compress(tar, preset=0)
    small = lzma.compress(tar_of(("a.jpg", b"x")), filters=[{"id": lzma.FILTER_LZMA2, "preset": 0}])
    # Byte 14 of the block header is the size of the dictionary; 40 stands for 4 GB.
    claims = patched(small, 16, "B", 40)
    yield "bomb/dictionary.tar.xz", patched(claims, 20, "<I", zlib.crc32(claims[12:20]))
    many = tar_of(*((f"r/{number}.txt", b"") for number in range(20_000)))
    yield "bomb/many.tar", many
    yield "bomb/many.zip", zip_of(*((f"r/{number}.txt", b"") for number in range(20_000)))
    header = tarfile.TarInfo("a.jpg")
    header.pax_headers = {"comment": "x" * 6_000_000}
    yield "bomb/pax.tar", tar_of((header, b"x"), mode="w:")


def laughs(levels: int, width: int = 10) -> str:
    lines = ["a0: &a0 [lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines)


def merges(levels: int) -> str:
    lines = ["a0: &a0 {k: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}, *a{n - 1}]}}" for n in range(1, levels)]
    return "\n".join(lines)


def yamls(sound: str) -> Named:
    """Hostile cards: made of a sound one, and whole ones."""
    yield from damaged("yaml", sound.encode(), 9, 30, 5)
    texts = {
        "laughs": laughs(12),
        "laughs-in-a-key": f"{laughs(9)}\ntask: *a8\n",
        "merges": merges(40),
        "recursive": "a: &a [*a]",
        "recursive-merge": "a: &a {<<: *a}",
        "deep-list": "a: " + "[" * 1_000,
        "deep-map": "".join(f"{' ' * n}a:\n" for n in range(400)),
        "long-number": "seed: " + "9" * 6_000,
        "octal": "seed: 0o" + "7" * 9_000,
        "hex": "seed: 0x" + "f" * 9_000,
        "float": "seed: 1e999999999",
        "sexagesimal": "seed: 1:" + ":".join(["59"] * 900),
        "date": "seed: 2026-99-99",
        "time": "seed: 2026-01-01T99:99:99Z",
        "binary": "seed: !!binary '===='",
        "object": "seed: !!python/object/apply:os.system ['true']",
        "tag": "seed: !include /etc/passwd",
        "set": "seed: !!set {a, b}",
        "omap": "seed: !!omap [a, b]",
        "pairs": "seed: !!pairs 3",
        "double": "seed: 1\nseed: 2",
        "two": "seed: 1\n---\nseed: 2",
        "list": "[1, 2]",
        "text": "just text",
        "empty": "",
        "tab": "\tseed: 1",
        "keys": "? [a, b]\n: 1\n? {a: 1}\n: 2",
        "null-key": "null: 1\n1: 2\ntrue: 3",
        "directive": "%YAML 9.9\n---\nseed: 1",
        "large": "a: '" + "x" * 3_000_000 + "'",
        "wide": "a: [" + "1, " * 60_000 + "]",
        "almost-large": "a: [" + "1, " * 19_000 + "]",
    }
    for name, text in texts.items():
        yield f"yaml/{name}", text.encode()
    yield "yaml/utf16", sound.encode("utf-16")
    yield "yaml/nul", b"a: \0"
    yield "yaml/bad", b"\xff\xfe\xfd"


def jsons(sound: str) -> Named:
    """Hostile bundle.json files, made of a sound one."""
    yield from damaged("json", sound.encode(), 10, 40, 4)
    document = json.loads(sound)
    for key in document:
        for number, value in enumerate((None, [], {}, -1, 1e308, "x" * 100_000, [[[]]])):
            yield f"json/{key}-{number}", json.dumps({**document, key: value}).encode()
    for name, text in {
        "deep": "[" * 200_000,
        "deep-key": '{"schema_version": 1, "a": ' + '{"b":' * 100_000,
        "number": '{"schema_version": ' + "9" * 9_000 + "}",
        "nan": sound.replace('"temperature": 1.0', '"temperature": NaN'),
        "infinite": sound.replace('"temperature": 1.0', '"temperature": Infinity'),
        "huge-input": sound.replace('"resize_px": 36', '"resize_px": 1000000000'),
        "climb": sound.replace("model_fp32.onnx", "../../evil.onnx"),
        "dots": sound.replace("model_fp32.onnx", ".."),
        "surrogate": sound.replace("Tiny tiles", "\\ud800"),
        "list": "[]",
        "empty": "",
    }.items():
        yield f"json/{name}", text.encode()


def models(sound: bytes) -> Named:
    """Hostile ONNX files, made of a sound one."""
    draw = np.random.default_rng(11)
    yield "sound/onnx", sound
    for number in range(150):
        changed = bytearray(sound)
        for _ in range(1 + number % 4):
            at = int(draw.integers(len(changed)))
            if number % 3:
                changed[at] = int(draw.integers(256))
            else:
                del changed[at : at + int(draw.integers(1, 30))]
        yield f"onnx/flip-{number}", bytes(changed)
    yield "onnx/zeros", bytes(1000)
    yield "onnx/ones", b"\xff" * 1000
    yield "onnx/fields", b"\x32\x00" * 1_000_000
    yield "onnx/ort", b"\0\0\0\0ORTM" + sound
