"""Where files of data are looked for: a folder that is named, FLOMI_DATA, installed packages, the system's data sets."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path


def find(
    file: str,
    root: str | Path | None,
    folders: Sequence[str],
    *,
    package: str = "",
    shared: str = "",
    advice: str = "",
) -> Path | None:
    """The first folder that holds `file`, which may be a pattern such as "*.csv"; None where no root is given and none is found.

    `root`: the set's own folder, or one that has it under a name in `folders`. Without it, `folders` of the folder that the
    environment variable FLOMI_DATA names; then `package` (package/folder of an installed package, which is found but not run);
    then `shared` among the data sets of the system. Raises ValueError, ending with `advice`, if `root` is given and has no
    such file.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp(), "raw")
    >>> folder.mkdir()
    >>> (folder / "a.csv").touch()
    >>> find("*.csv", folder.parent, ["raw"]) == folder
    True
    """
    if root is not None:
        base = Path(root).expanduser()
        for folder in (base, base / "raw", *(base / name for name in folders)):
            if any(folder.glob(file)):
                return folder
        raise ValueError(
            f"there is no {file} in {base}, nor in its {' or '.join(folders)}{advice and ': '}{advice}"
        )
    own = os.environ.get("FLOMI_DATA")
    named = [Path(own).expanduser() / name for name in folders] if own else []
    return next(
        (folder for folder in (*named, *_packaged(package), *_shared(shared)) if any(folder.glob(file))), None
    )


def locate(
    what: str,
    file: str,
    root: str | Path | None,
    folders: Sequence[str],
    *,
    advice: str,
    how: str = "",
    **places: str,
) -> Path:
    """`find`, with a ValueError where there is nothing: "`what` not on this machine", and `how` to get it."""
    folder = find(file, root, folders, advice=advice, **places)
    if folder is None:
        steps = f"{how} give a root or FLOMI_DATA, a folder with {advice}".strip()
        raise ValueError(f"{what} not on this machine: {steps}")
    return folder


def _packaged(inside: str) -> Iterator[Path]:
    name, _, rest = inside.partition("/")
    spec = find_spec(name) if name else None
    for location in (spec.submodule_search_locations or ()) if spec else ():
        yield Path(location) / rest


def _shared(name: str) -> Iterator[Path]:
    """`name` under every folder of shared data, by the XDG convention: on Debian /usr/local/share and /usr/share."""
    if name:
        for base in (os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(":"):
            yield Path(base) / "datasets" / name
