"""The phone page as a folder of files, for any host that serves files over https.

`make phone-site OUT=folder`, or ``python -m apps.phone_static folder``. What is written is what
`apps.phone_server` gives, so that the page needs no Python of ours where it is served, and no
server of ours where a camera and offline use want https. A file ``_headers`` holds the headers in
the form that several static hosts read; without them the page works with one thread.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from apps.phone_server import HEADERS
from apps.phone_site import DIST_DIR, PhoneSite
from pipelines.atomic import new_folder
from pipelines.errors import ConfigError, PipelineError
from pipelines.serving.gallery import gallery_file

#: In a folder that was written by this module.
_HEADERS_FILE = "_headers"


def write_site(root: Path, folder: Path, dist_dir: Path = DIST_DIR) -> list[Path]:
    """Write the page and the models of a project.

    Args:
        folder: is made, or replaced as a whole where an earlier call made it.

    Raises:
        ConfigError: if the page was not built, there is no model, or ``folder`` holds something
            else.
        BundleError: if a gallery is damaged or another model's.
        StorageError: if the disk is full or forbids it.
    """
    site = PhoneSite.open(root, dist_dir)
    addresses = site.addresses()
    if not any(address.endswith("/bundle.json") for address in addresses):
        raise ConfigError(f"{site.paths.models_dir}: there is no model. Run `make repro` first.")
    if folder.exists() and not (folder / _HEADERS_FILE).is_file():
        raise ConfigError(
            f"{folder}: expected a folder that is not there, or a site that was written before."
        )
    written = []
    with new_folder(folder) as new:
        for address in addresses:
            answer = site.find(address, ())
            if answer is None:
                raise ConfigError(f"{address}: went away while the site was written. Try again.")
            path = new / address.removeprefix("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(answer.body)
            written.append(path.relative_to(new))
        lines = "".join(f"  {name}: {value}\n" for name, value in HEADERS.items())
        (new / _HEADERS_FILE).write_text(f"/*\n{lines}", encoding="utf-8")
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the site and say what is in it; 2 if it cannot be written."""
    parser = argparse.ArgumentParser(
        prog="python -m apps.phone_static",
        description="Write the phone page and the models as files for a static host (https).",
    )
    parser.add_argument("folder", type=Path, help="where to; replaced if it is such a site")
    parser.add_argument("--root", type=Path, default=Path(), help="project folder (default: .)")
    args = parser.parse_args(arguments)
    try:
        written = write_site(args.root, args.folder)
    except PipelineError as err:
        sys.stderr.write(f"error: {err}\n")
        return 2
    n_bytes = sum((args.folder / path).stat().st_size for path in written)
    galleries = _beside(written, gallery_file(Path()).name)
    known = f" and the galleries (names, small pictures) of {galleries}" if galleries else ""
    sys.stdout.write(
        f"{args.folder}: {len(written)} files, {n_bytes / 1e6:.1f} MB, with the models of "
        f"{_beside(written, 'bundle.json')}{known}. Serve it over https; mind the licences of "
        f"their data (docs/THIRD_PARTY.md).\n"
    )
    return 0


def _beside(written: Sequence[Path], name: str) -> str:
    """The tasks that have such a file."""
    return ", ".join(sorted(path.parent.name for path in written if path.name == name))


if __name__ == "__main__":
    sys.exit(main())
