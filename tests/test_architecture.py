"""The floors of docs and design hold: imports go down only, and rooms on one floor do not know each other."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "kd"

FLOORS = [
    [
        *(
            "errors",
            "contract",
            "checksum",
            "paths",
            "hub",
            "run",
            "metrics",
            "statistics",
            "energy",
            "assets",
            "model_folder",
            "mapper",
            "recording",
            "progress_bar",
        ),
        *(
            "identity",
            "launch",
            "locks",
            "ranks",
            "memory",
            "targets",
            "devices",
            "configuration",
            "sharing",
            "shares",
            "quiet",
        ),
    ],
    ["features", "sweep", "report", "requeue"],
    ["pruning"],
    ["inference"],
    ["losses", "models", "methods", "data", "teacher_cache"],
    ["ready_teacher", "predictor"],
    ["answers", "fine_tuning"],
    ["teacher"],
    ["transfer"],
    ["ensemble", "assistant"],
    ["build"],
    ["limits", "contradictions", "assembly"],
    ["check"],
    ["training"],
    ["single_run"],
    ["commands"],
    ["cli"],
    ["__main__"],
]
# Floor 1 tools that others on floor 1 may use, lowest first.
FOUNDATION = ["errors", "launch", "locks", "contract", "checksum", "hub", "paths"]
FLOOR = {room: number for number, rooms in enumerate(FLOORS, start=1) for room in rooms}
TORCH_FREE = [
    "cli.py",
    "run.py",
    "errors.py",
    "statistics.py",
    "energy.py",
    "commands/report.py",
    "commands/cache.py",
    "teacher_cache.py",
    "checksum.py",
    "paths.py",
    "hub.py",
    "targets.py",
    "identity.py",
    "launch.py",
    "locks.py",
    "memory.py",
    "configuration.py",
    "sharing.py",
    "ranks.py",
    "devices.py",
    "shares.py",
    *(f"sweep/{path.name}" for path in sorted((PACKAGE / "sweep").glob("*.py"))),
    *(f"report/{path.name}" for path in sorted((PACKAGE / "report").glob("*.py"))),
]
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.name != "__init__.py")


def imported(path: Path) -> set[str]:
    """The rooms of kd that a module imports."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            rooms |= {name.name.split(".")[1] for name in node.names if name.name.startswith("kd.")}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "kd":
            parts = node.module.split(".")
            rooms |= {parts[1]} if len(parts) > 1 else {name.name for name in node.names if name.name[0] != "_"}
    return rooms


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path):
    room = room_of(path)
    assert room in FLOOR, f"kd/{room} has no floor: add it to FLOORS"
    for other in imported(path) - {room}:
        below = FLOOR[other] < FLOOR[room]
        foundation = other in FOUNDATION and (
            room not in FOUNDATION or FOUNDATION.index(other) < FOUNDATION.index(room)
        )
        assert below or foundation, f"{path.relative_to(PACKAGE)} imports kd.{other}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "commands").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_commands_do_not_import_each_other(path):
    assert "commands" not in imported(path)


@pytest.mark.parametrize("name", TORCH_FREE)
def test_reading_runs_needs_no_torch(name):
    """Neither the module nor what it imports from kd names a heavy library at its head."""
    heavy = {"torch", "transformers", "lightning", "datasets", "torchmetrics"}
    todo, seen = [PACKAGE / name], set()
    while todo:
        path = todo.pop()
        seen.add(path)
        tree = ast.parse(path.read_text())
        for node in tree.body:
            names = (
                [n.name for n in node.names]
                if isinstance(node, ast.Import)
                else [node.module]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            assert not heavy & {n.split(".")[0] for n in names}, f"{path} imports {names}"
        for room in imported(path):
            if (PACKAGE / f"{room}.py").is_file() and PACKAGE / f"{room}.py" not in seen:
                todo.append(PACKAGE / f"{room}.py")


def test_only_build_instantiates():
    for path in MODULES:
        if path.name != "build.py":
            assert "hydra.utils" not in path.read_text(), path
