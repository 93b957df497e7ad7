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

# A module may import from the groups before its own. (The oracle knows no model, only callables.)
LAYERS: list[set[str]] = [
    {"errors", "lazy"},
    {"draws", "threat_model", "typed"},
    {"threat"},
    {"cards", "distributed", "environment", "memory", "module_state", "options", "outputs", "given"},
    {"oracle", "pictures"},
    {"models", "data"},
    {"suitable"},
    {"explain", "judging"},
    {"attacks"},
    {"defenses"},  # methods: a batch, a filter; training calls them, not they training
    {"asked", "training"},
    {"cascade", "randomised"},
    {"audit"},
    {"provenance", "transfer"},
    {"intake"},
    {"estimate", "plan"},
    {"evaluation"},
    {"train_progress"},
    {"main_job", "train_job", "verification"},
    {"cli"},
    {"__main__"},
]
# These know run folders, not models: they import each other and errors, never torch, and anybody may import them.
FILES = {"tolerance", "files", "progress", "intervals", "reading", "reporting", "runs", "words"}
HEAVY = ("torch", "torchvision", "captum", "foolbox", "matplotlib", "scipy")


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def home(path: Path) -> str:
    """The name directly under robustlab that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything that a file imports, at its top or later."""
    package = ["robustlab", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            # `from robustlab import draws` imports a module, `from robustlab.draws import keys` a name in one
            yield from ((node.lineno, f"{base}.{alias.name}" if base == "robustlab" else base) for alias in node.names)


def allowed(own: str) -> set[str]:
    if own in FILES:
        return FILES | LAYERS[0]
    level = next((number for number, group in enumerate(LAYERS) if own in group), 0)
    return {own}.union(FILES, *LAYERS[:level])


def test_every_module_has_a_place_in_the_order() -> None:
    placed = set().union(FILES, *LAYERS)
    homeless = {home(path) for path in sources()} - placed - {"__init__"}
    assert not homeless, f"{homeless}: say in tests/test_package.py what they may import"


def test_imports_go_one_way() -> None:
    wrong = []
    for path in sources():
        own = home(path)
        if own == "__init__":  # the lazy exports
            continue
        for line, name in imported(path):
            parts = name.split(".")
            if parts[0] == "robustlab" and len(parts) > 1 and parts[1] not in allowed(own) | {"__version__"}:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
            if own in FILES and parts[0] in ("torch", "torchvision"):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}, but runs and pages are read without it")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "module",
    [
        "robustlab",
        "robustlab.cli",
        "robustlab.cards",
        "robustlab.attacks",
        "robustlab.attacks.suite",
        "robustlab.data",
        "robustlab.explain",
        "robustlab.models",
    ],
)
def test_importing_is_cheap(module: str) -> None:
    code = f"import sys, {module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert out.split() == []


def test_runs_and_pages_are_read_without_torch() -> None:
    names = [
        "robustlab." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        for path in sources()
        if home(path) in FILES
    ]
    code = f"import sys, importlib; [importlib.import_module(n) for n in {names}]; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert out.split() == ["False"]


def test_version() -> None:
    assert robustlab.__version__ == PROJECT["project"]["version"]
    command = [sys.executable, "-m", "robustlab", "--version"]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert out.split() == [robustlab.__version__]


def test_exports() -> None:
    names = {"evaluate", "report", "train", "verify", "load_model", "load_data"}
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
