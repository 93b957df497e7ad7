"""Which files in a folder are ours: run.json says so, and while a run is not finished, a journal beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from robustlab.base.errors import UserError
from robustlab.base.files.directory import Directory
from robustlab.base.lazy import locate
from robustlab.base.reading import JSON_BYTES, decoded

INFO, LOCK, JOURNAL, NEW = "run.json", ".lock", ".files", ".new"
SCHEMA_VERSION = 1
MARK = {"written_by": "robustlab"}
WORDS = {"attack": "run", "train": "training", "physical": "run", "backdoor": "run"}
COMMANDS = {
    "attack": "attack",
    "train": "train",
    "physical": "attack --suite sticker (or patch)",
    "backdoor": "backdoor",
}
KINDS = {
    "attack": "robustlab.runs.manifest:RUN",
    "train": "robustlab.training.manifest:TRAINING",
    "physical": "robustlab.physical.folder:STICKERS",
    "backdoor": "robustlab.backdoors.job:BACKDOORS",
}
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp")  # of `Directory.write`
Json = dict[str, Any]


def encoded(info: Mapping[str, Any]) -> bytes:
    """The text of run.json, which begins with our mark."""
    return msgspec.json.format(msgspec.json.encode({**MARK, **info}), indent=2) + b"\n"


_BEGINNING = encoded({"a": 0}).partition(b",")[0]


@dataclass(frozen=True)
class Kind:
    """What a command writes into a folder.

    name: `kind` of its run.json. files: beside run.json. folders: with the endings of what is in them. again: those
    that can be made again from the others.
    """

    name: str
    files: tuple[str, ...]
    folders: Mapping[str, tuple[str, ...]]
    again: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        """What a message calls it."""
        return WORDS[self.name]

    def may_write(self, name: str) -> bool:
        """Could this be a file of such a run? A list of files may come from a stranger."""
        folder, slash, leaf = name.rpartition("/")
        if not slash:
            return name in self.files
        return leaf.endswith(self.folders.get(folder, ())) and "/" not in leaf and "\0" not in leaf


def found(place: Directory, kind: Kind, shown: Path) -> Json | None:
    """run.json of a folder of ours, or None where the folder is empty. UserError where it is anything else.

    A lock, and what a kill left of the very first file that we write, count as nothing.
    """
    names = [name for name in place.names() if not _is_ours_at_once(place, name)]
    if not names:
        return None
    if INFO not in names:
        raise foreign(shown, names)
    try:
        content = place.read(INFO, JSON_BYTES + 1)
        info = None if content is None or len(content) > JSON_BYTES else decoded(content)
    except OSError:  # a link, a pipe, a folder
        raise foreign(shown, _info_first(names)) from None
    except ValueError:
        raise UserError(
            f"{shown / INFO} is damaged, or was not written by robustlab: its folder is no run of robustlab, and"
            " nothing is written there. Choose another output."
        ) from None
    version = info.get("schema_version") if isinstance(info, dict) else None
    if isinstance(info, dict) and type(version) is int and version > SCHEMA_VERSION and "config" in info:
        raise UserError(
            f"{shown / INFO} has schema version {version}, and this robustlab knows versions up to {SCHEMA_VERSION}."
            " Update robustlab."
        )
    versions = info.get("versions") if isinstance(info, dict) and "written_by" not in info else None
    if isinstance(versions, dict) and "robustlab" in versions:
        raise UserError(
            f"{shown / INFO} was written by an older robustlab, which did not list its files, so none of them is"
            " replaced. Choose another output."
        )
    if not isinstance(info, dict) or not _is_ours(info):
        raise foreign(shown, _info_first(names))
    if info["kind"] != kind.name:
        raise UserError(
            f"{shown} holds a {WORDS[info['kind']]} of `robustlab {COMMANDS[info['kind']]}`, and is not replaced by one"
            f" of `robustlab {COMMANDS[kind.name]}`. Choose another output."
        )
    return dict(info)


def names_of(place: Directory, info: Json, kind: Kind) -> set[str]:
    """The files of a run of ours, by all that its folder says; run.json itself is not among them."""
    names = set(map(str, info["files"])) if isinstance(info.get("files"), list) else set()
    names |= read_journal(place.read(JOURNAL) or b"")[0]
    return set(filter(kind.may_write, names))


def of_a_run(path: Path) -> bool:
    """Is it a file that a run or a training cannot do without?"""
    for root in path.parents[:2]:
        name = str(path.relative_to(root))
        if (root / INFO).is_file():
            kinds: list[Kind] = [locate(each) for each in KINDS.values()]
            if name == INFO or any(kind.may_write(name) and name not in kind.again for kind in kinds):
                return True
    return False


def foreign(folder: Path, names: Sequence[str]) -> UserError:
    """What is said of a folder that is not ours."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return UserError(
        f"{folder} holds files that are no run of robustlab ({', '.join(names[:3])}{more}), so nothing is written"
        " there. Choose another output."
    )


def read_journal(content: bytes) -> tuple[set[str], set[str]]:
    """The names that a journal gives (`+name`), and takes back because they turned out to be somebody else's (`-name`).

    >>> read_journal(journal_line("a") + journal_line("b") + journal_line("a", sign="-") + b"+torn")
    ({'b'}, {'a'})
    """
    given: set[str] = set()
    taken: set[str] = set()
    for line in content.decode(errors="replace").split("\n")[:-1]:
        if line[:1] in ("+", "-"):
            into, out = (given, taken) if line[0] == "+" else (taken, given)
            into.add(line[1:])
            out.discard(line[1:])
    return given, taken


def journal_line(name: str, sign: str = "+") -> bytes:
    """The line begins with an end of line, in case that the one before was torn by a full disk."""
    return f"\n{sign}{name}\n".encode()


def remove(place: Directory, names: Iterable[str]) -> None:
    """Remove files of ours, and what a kill left of them under temporary names."""
    gone = set(names)
    for name in sorted(gone):
        place.remove(name)
    remove_temporary(place, gone)


def remove_temporary(place: Directory, names: Iterable[str]) -> None:
    """Remove what a kill left of these files before they were whole."""
    ours = {*names, INFO, JOURNAL}
    for folder in {name.rpartition("/")[0] for name in ours}:
        for leaf in place.names(folder):
            whole, name = _TEMPORARY.fullmatch(leaf), f"{folder}/" if folder else ""
            if whole and name + whole[1] in {each[: len(name) + 80] for each in ours}:
                place.remove(name + leaf)


def _info_first(names: list[str]) -> list[str]:
    return [INFO, *(name for name in names if name != INFO)]


def _is_ours(info: Json) -> bool:
    if info.get("kind") not in WORDS or type(info.get("schema_version")) is not int:
        return False
    if not isinstance(info.get("config"), dict) or not isinstance(info.get("config_hash"), str):
        return False
    return info.get("written_by") == MARK["written_by"]


def _is_ours_at_once(place: Directory, name: str) -> bool:
    if name == LOCK:
        status = place.status(name)
        return place.is_file(name) and status is not None and status.st_size == 0
    whole = _TEMPORARY.fullmatch(name)
    if not whole or whole[1] != INFO or not place.is_file(name):
        return False
    begins = place.read(name, len(_BEGINNING)) or b""
    return _BEGINNING.startswith(begins)
