"""A finished run in the folder .new takes the place of the one around it."""

from __future__ import annotations

import os
from pathlib import Path

from robustlab.base.errors import RunError, spelled
from robustlab.base.files.directory import Directory
from robustlab.base.files.manifest import INFO, JOURNAL, NEW, Kind, encoded, found, names_of, remove, remove_temporary


def replace_run(root: Directory, new: Directory, kind: Kind, shown: Path) -> None:
    """Remove the old run's own files and move the new one's over, run.json the last.

    It may be killed anywhere and done again: a file that is not in `new` any more was moved, and until the end the old
    run.json names the old files; it says that it is not finished, so that nobody reads half of each.
    """
    old, info = found(root, kind, shown), found(new, kind, shown / NEW)
    assert old is not None and info is not None
    ours, coming = names_of(root, old, kind), names_of(new, info, kind)
    for name in sorted(coming):
        there, comes = root.status(name), new.status(name)
        if there and comes and name not in ours and not os.path.samestat(there, comes):
            raise _in_the_way(shown / name)
    for folder in kind.folders:
        if root.status(folder) is not None and not root.is_folder(folder):
            raise _in_the_way(shown / folder)
    root.write(INFO, encoded({**old, "finished": False, "files": sorted(ours)}), replace=True)
    remove(root, (name for name in ours | coming if name not in coming or new.is_file(name)))
    root.remove(JOURNAL)
    for folder in kind.folders:
        inside = [name for name in coming if name.startswith(f"{folder}/")]
        if inside:
            root.make(folder)
    for name in sorted(coming):
        if new.is_file(name):
            new.move(name, root)
    for folder in kind.folders:
        new.drop(folder)
        if not any(name.startswith(f"{folder}/") for name in coming):
            root.drop(folder)
    new.remove(JOURNAL)
    remove_temporary(new, coming)
    new.move(INFO, root, replace=True)
    root.drop(NEW)


def _in_the_way(path: Path) -> RunError:
    return RunError(
        f"{path} is not robustlab's, and the new run must write there. Move it away, then give the same command with"
        f" {spelled('resume', True)}: the new run is whole, and takes the place of the old one."
    )
