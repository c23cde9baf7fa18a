"""The rows of the house hold: imports go down only, and rooms of one row do not know each other."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "kd"

ROWS = [
    ["errors"],
    ["options"],
    ["storage", "runtime", "contract"],
    ["losses", "data", "features", "run"],
    ["sweep", "measure", "transfer"],
    ["methods", "models"],
    ["teacher", "predictor"],
    ["config", "report", "export"],
    ["assembly", "classifier"],
    ["training", "cascade", "benchmark", "evaluation", "explanation", "audit", "comparison", "advice"],
    ["serving"],
    ["api"],
    ["commands"],
    ["cli"],
    ["__main__"],
]
"""From the lowest to the highest."""
ROW = {room: number for number, rooms in enumerate(ROWS) for room in rooms}
ROOT_FILES = 8
FILE_LINES, FUNCTION_LINES = 350, 50
TORCH_FREE = [
    *(
        "api.py",
        "cli.py",
        "classifier.py",
        "errors.py",
        "measure/significance.py",
        "measure/energy.py",
        "measure/row_values.py",
        "commands/report.py",
        "commands/cache.py",
        "commands/experiments.py",
        "commands/serve.py",
        "explanation/attribution.py",
    ),
    *("options/declared.py", "teacher/cache.py", "config/targets.py", "config/folder.py", "data/batch_weights.py"),
    *(f"storage/{name}.py" for name in ("checksum", "files", "hub", "locks", "paths", "pieces")),
    *(f"runtime/{name}.py" for name in ("devices", "fork_memory", "launch", "ranks", "requeue")),
    *(
        f"{wing}/{path.name}"
        for wing in ("run", "sweep", "report", "serving")
        for path in sorted((PACKAGE / wing).glob("*.py"))
    ),
]
"""What reads a run, or starts a sweep, must not wait for torch."""
HEAVY = {"torch", "transformers", "lightning", "datasets", "torchmetrics"}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def name_of(path: Path) -> str:
    return ".".join(["kd", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


NAMES = {name_of(path): path for path in MODULES}


def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when a module is imported, also within ``if``, ``try`` and classes; not what only mypy reads."""
    yield node
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        children = node.orelse
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        children = []
    else:
        children = ast.iter_child_nodes(node)
    for child in children:
        yield from outside_functions(child)


def imports(path: Path, at_head: bool = False) -> list[str]:
    """The full names of what a module imports.

    Args:
        at_head: leave out what is imported within functions.
    """
    tree, found = ast.parse(path.read_text()), []
    for node in outside_functions(tree) if at_head else ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{name.name}" for name in node.names]
    return found


def modules_of_kd(path: Path, at_head: bool = False) -> set[str]:
    """The modules of kd that a module imports."""
    names = (name for name in imports(path, at_head) if name.startswith("kd."))
    return {name if name in NAMES else name.rpartition(".")[0] for name in names} & set(NAMES)


def with_packages(names: set[str]) -> set[str]:
    """Modules, and the packages whose ``__init__.py`` Python runs before them; not that of kd itself."""
    parts = [name.split(".") for name in names]
    return {".".join(each[:end]) for each in parts for end in range(2, len(each) + 1)}


def room_of(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_name_the_module(path):
    """So that the tests below see which one it is."""
    for node in ast.walk(ast.parse(path.read_text())):
        assert not getattr(node, "level", 0), f"line {node.lineno}: a relative import"
    assert not {"kd", "kd.*"} & set(imports(path)), "import a module of kd, not kd"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path):
    room = room_of(name_of(path))
    assert room in ROW, f"kd/{room} has no row: add it to ROWS"
    for other in modules_of_kd(path):
        below = ROW[room_of(other)] < ROW[room]
        assert below or room_of(other) == room, f"{path.relative_to(PACKAGE)} imports {other}"


def test_within_a_room_no_imports_run_in_a_circle():
    arrows = {name: modules_of_kd(path) - {name} for name, path in NAMES.items()}
    while ends := [name for name, others in arrows.items() if not others & set(arrows)]:
        for name in ends:
            del arrows[name]
    assert not arrows, f"these import each other: {', '.join(arrows)}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "commands").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_commands_do_not_import_each_other(path):
    assert not any(room_of(name) == "commands" for name in modules_of_kd(path))


@pytest.mark.parametrize("name", TORCH_FREE)
def test_reading_runs_needs_no_torch(name):
    """Neither the module nor what it imports from kd names a heavy library outside its functions."""
    todo, seen = with_packages({name_of(PACKAGE / name)}), set()
    while todo:
        path = NAMES[todo.pop()]
        seen.add(name_of(path))
        assert not HEAVY & {found.split(".")[0] for found in imports(path, at_head=True)}, path
        todo |= with_packages(modules_of_kd(path, at_head=True)) - seen


def test_reading_runs_loads_no_torch():
    """Python says it too, also of what other libraries import."""
    names = [name_of(PACKAGE / name) for name in TORCH_FREE]
    code = f"import sys; sys.argv[0] = 'kd'; import {', '.join(names)}; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def uses_instantiate(path: Path) -> bool:
    """Whether a module imports ``hydra.utils`` or something from it, or reaches ``instantiate`` as an attribute."""
    imported = [name.split(".") for name in imports(path) if name.split(".")[0] == "hydra"]
    attributes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)]
    return any(parts[1:2] == ["utils"] or {"instantiate", "*"} & set(parts) for parts in imported) or any(
        node.attr == "instantiate" or ast.unparse(node) == "hydra.utils" for node in attributes
    )


def test_only_make_instantiates():
    assert [path for path in MODULES if uses_instantiate(path)] == [PACKAGE / "config" / "make.py"]


def test_the_root_holds_few_files():
    assert len(list(PACKAGE.glob("*.py"))) <= ROOT_FILES


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_can_be_read_in_one_sitting(path):
    text = path.read_text()
    assert len(text.splitlines()) <= FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno < FUNCTION_LINES, f"{path.relative_to(PACKAGE)}: {node.name}"


HELD_BY = {
    "advice/costs": "advice/test_plan.py",
    "advice/study": "commands/test_auto.py",
    "commands/advise": "advice/test_plan.py",
    "commands/benchmark": "commands/test_export.py",
    **dict.fromkeys(
        [f"comparison/{name}" for name in ("comparison", "compatibility", "page", "sides", "start")],
        "commands/test_compare.py",
    ),
    "export/program": "export/test_write.py",
    "report/model_card": "commands/test_export.py",
    "__main__": "end_to_end/test_commands.py",
    "commands/cache_build": "end_to_end/test_large.py",
    "commands/report": "report/test_trained.py",
    "commands/train": "end_to_end/test_commands.py",
    "data/objects": "test_api.py",
    "data/words": "data/test_wordwise.py",
    "config/words": "test_api.py",
    "runtime/command": "test_api.py",
    "runtime/global_state": "test_api.py",
    "storage/cache_records": "storage/test_records.py",
    "sweep/queue": "sweep/test_sweep.py",
    "training/evaluation": "end_to_end/test_commands.py",
    "training/pruning": "end_to_end/test_optuna.py",
    "training/train": "end_to_end/test_commands.py",
}
"""Modules without a test file of their own name, and the test that holds each."""


@pytest.mark.parametrize("path", [path for path in MODULES if path.name != "__init__.py"], ids=name_of)
def test_every_module_has_a_test_of_its_name_or_a_line_that_says_which_holds_it(path):
    place = path.relative_to(PACKAGE)
    own = TESTS / place.parent / f"test_{place.name}"
    key = place.with_suffix("").as_posix()
    if own.is_file():
        assert key not in HELD_BY, f"kd/{key}.py has a test of its own: take its line out of HELD_BY"
    else:
        assert key in HELD_BY, f"kd/{key}.py: expected tests/{own.relative_to(TESTS)}, or a line in HELD_BY"
        assert (TESTS / HELD_BY[key]).is_file()
