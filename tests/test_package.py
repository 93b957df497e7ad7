"""The package as a whole: version, what importing it costs, what goes into the wheel, which way imports go."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import robustlab

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "robustlab"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

# A room may import from its own group's other rooms never, from those of the groups before it always.
LAYERS: list[set[str]] = [
    {"base"},
    {"threat"},
    {"oracle", "worlds", "runs"},
    {"data", "reporting"},
    {"models"},
    {"attacks", "explain", "interop"},
    {"defenses"},
    {"training", "evaluation"},
    {"verification", "physical", "backdoors", "testing"},
    {"cli"},
]
# These know run folders, not models: a page is built on a machine without torch.
FILES = ("runs", "reporting")
HEAVY = ("torch", "torchvision", "captum", "foolbox", "matplotlib", "scipy", "timm", "transformers")


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def home(path: Path) -> str:
    """The name directly under robustlab that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path, each: bool = False) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything that a file imports, at its top or later. each: with the names taken."""
    package = ["robustlab", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            # `from robustlab import draws` imports a module, `from robustlab.base.draws import keys` a name in one
            yield from (
                (node.lineno, f"{base}.{alias.name}" if each or base == "robustlab" else base) for alias in node.names
            )


def allowed(own: str) -> set[str]:
    level = next(number for number, group in enumerate(LAYERS) if own in group)
    return {own}.union(*LAYERS[:level])


def modules() -> dict[str, Path]:
    """Every module by its dotted name."""
    return {
        ".".join(("robustlab", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in sources()
    }


def arrows() -> dict[str, set[str]]:
    """What each module imports of the package, at its top or later."""
    known = modules()
    found: dict[str, set[str]] = {name: set() for name in known}
    for name, path in known.items():
        for _, other in imported(path, each=True):
            while other not in known and "." in other:
                other = other.rpartition(".")[0]
            if other in known and other not in (name, "robustlab"):
                found[name].add(other)
    return found


def test_at_most_ten_layers_and_four_loose_modules() -> None:
    assert len(LAYERS) <= 10
    assert {home(path) for path in sources()} - {"__init__", "__main__"} == set().union(*LAYERS)
    assert len([path for path in sources() if path.parent == PACKAGE]) <= 4


def test_imports_go_one_way() -> None:
    wrong = []
    for path in sources():
        own = home(path)
        if own in ("__init__", "__main__"):  # the lazy exports, and what stands above all
            continue
        for line, name in imported(path):
            parts = name.split(".")
            if parts[0] == "robustlab" and len(parts) > 1 and parts[1] not in allowed(own) | {"__version__"}:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_no_circle_inside_a_room() -> None:
    """Files that import each other, late or for types alone, cannot be read one after the other."""
    left = arrows()
    packages = {name for name, path in modules().items() if path.name == "__init__.py"}
    for name in packages:  # a package's own file hands out what its files make, when it is asked for
        left.pop(name)
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            left.pop(name)
    assert not left, f"these are in a circle, or import one: {sorted(left)}"


@pytest.mark.parametrize(
    "module",
    [
        "robustlab",
        "robustlab.cli",
        "robustlab.base.cards",
        "robustlab.attacks",
        "robustlab.attacks.suite",
        "robustlab.data",
        "robustlab.explain",
        "robustlab.models",
        "robustlab.testing",
    ],
)
def test_importing_is_cheap(module: str) -> None:
    code = f"import sys, {module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert out.split() == []


def test_the_first_step_waits_for_nothing_that_it_does_not_need() -> None:
    """What `robustlab attack` has imported when its first attack begins; each of these would take a second or more."""
    late = {"scipy", "captum", "foolbox", "matplotlib", "torchvision", "jinja2", "torch._dynamo", "sympy", "pandas"}
    code = f"""
import os, sys, tempfile
from robustlab.attacks import driver
from robustlab.cli import main

def run(drive):
    print(*sorted({late} & sys.modules.keys()), "begun")
    sys.stdout.flush()
    os._exit(0)

driver._Drive.run = run
main(["attack", "road-signs/cnn", "--limit", "2", "--output", tempfile.mkdtemp() + "/run", "--quiet"])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert out.stdout.split() == ["begun"], out.stderr


def test_runs_and_pages_are_read_without_torch() -> None:
    """Nothing that they import, at once or late, imports torch."""
    known, after = modules(), arrows()
    todo = [name for name, path in known.items() if home(path) in FILES]
    seen = set(todo)
    while todo:
        name = todo.pop()
        heavy = [other for _, other in imported(known[name]) if other.split(".")[0] in ("torch", "torchvision")]
        assert not heavy, f"{name} imports {heavy[0]}"
        todo += after[name] - seen
        seen |= after[name]


def test_version() -> None:
    assert robustlab.__version__ == PROJECT["project"]["version"]
    command = [sys.executable, "-m", "robustlab", "--version"]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert out.split() == [robustlab.__version__]


def test_exports() -> None:
    names = {"evaluate", "report", "train", "verify", "load_model", "load_data", "two_classes"}
    assert names < set(robustlab.__all__) and names < set(dir(robustlab))
    for name in names:
        assert callable(getattr(robustlab, name))
        assert not (PACKAGE / f"{name}.py").exists() and not (PACKAGE / name).exists()  # would shadow the function
    with pytest.raises(AttributeError, match="'robustlab' has no attribute 'evalute'"):
        _ = robustlab.evalute


def test_every_folder_with_code_is_a_package() -> None:
    """Packages are found by their __init__.py: a folder without one would be missing from the wheel."""
    folders = {path.parent for path in sources()}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_every_file_beside_the_code_is_in_the_wheel() -> None:
    shipped = set()
    for package, patterns in PROJECT["tool"]["setuptools"]["package-data"].items():
        folder = ROOT.joinpath(*package.split("."))
        shipped |= {path for pattern in patterns for path in folder.glob(pattern)}
    there = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert there - shipped == set()


@pytest.mark.parametrize("kind", ["attacks", "defenses"])
def test_folders_of_cards_hold_cards_only(kind: str) -> None:
    """setup.py copies *.toml and *.md into the wheel; anything else would be left behind."""
    names = [path.name for path in (ROOT / kind).iterdir() if path.name != "__pycache__"]
    assert names and {Path(name).suffix for name in names} <= {".toml", ".md"}
