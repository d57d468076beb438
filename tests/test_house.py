"""The rules of the house, read from its own source: floors, environment, names, imports, and a README that is true."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import ingot
from ingot.cli import app, run
from ingot.dashboard.run import flatten
from ingot.recipe.files import builtin_recipes
from ingot.recipe.recipe import Recipe

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "ingot"
FILES = sorted(SOURCE.rglob("*.py"))
NAMES = [str(path.relative_to(SOURCE)) for path in FILES]

# From the ground up. What stands on one floor imports only from the floors below it; docs/decisions.md says why.
FLOORS = (
    ("__init__",),
    ("errors", "extras", "terminal"),
    ("config", "distributed", "files", "hub", "rhythm"),
    ("model", "tokenizer", "optim", "track"),
    ("data", "generate", "checkpoint"),
    ("chat",),
    ("batches",),
    ("language_model",),
    ("convert", "dashboard", "engine", "serve"),
    ("manager", "recipe"),
    ("estimate", "evaluate"),
    ("prepare", "train", "bench"),
    ("demo", "plan", "sweep"),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def room_of(path: Path) -> str:
    """The package, or the module beside the packages, that a file belongs to."""
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def imports_at_run_time(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import, also inside functions, but for those under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imports_at_run_time(ast.Module(body=node.orelse, type_ignores=[]))
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: imports are absolute here"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        else:
            yield from imports_at_run_time(node)


def rooms_imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and room of every import from ingot; `import ingot` and `from ingot import __version__` are the ground."""
    for line, name in imports_at_run_time(tree):
        package, _, rest = name.partition(".")
        if package == "ingot":
            room = rest.partition(".")[0]
            exists = room and ((SOURCE / room).is_dir() or (SOURCE / f"{room}.py").is_file())
            yield line, room if exists else "__init__"


def test_the_import_reader_sees_what_it_should():
    tree = ast.parse(
        "import ingot\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from ingot.cli import app\nelse:\n    from ingot.config import Config\n"
        "def verb():\n    from ingot.errors import UserError\n"
    )
    assert [room for _, room in rooms_imported(tree)] == ["__init__", "config", "errors"]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_imports_only_from_lower_floors(path):
    own = room_of(path)
    assert own in FLOOR, f"{own} stands on no floor; give it one in FLOORS"
    wrong = [
        f"line {line}: {own} imports {room}"
        for line, room in rooms_imported(ast.parse(path.read_text(encoding="utf-8")))
        if room != own and FLOOR[room] >= FLOOR[own]
    ]
    assert not wrong


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_only_distributed_reads_the_environment(path):
    readers = {"environ", "environb", "getenv", "getenvb"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "os" and node.attr in readers:
            assert room_of(path) == "distributed", f"line {node.lineno}"
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            assert not readers & {alias.name for alias in node.names}, f"line {node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_nothing_is_unpickled(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {name.partition(".")[0] for _, name in imports_at_run_time(tree)}
    assert not imported & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) != "torch.load", f"line {node.lineno}"
            unpickles = [
                word for word in node.keywords if word.arg == "allow_pickle" and ast.unparse(word.value) != "False"
            ]
            assert not unpickles, f"line {node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_what_is_public_says_what_it_is(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "the file says not what it is for"
    public = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    assert not [node.name for node in public if not ast.get_docstring(node)]


def test_no_attics_and_no_loose_ends():
    attics = {"util", "utils", "helper", "helpers", "misc", "common"}
    everything = [*FILES, *(ROOT / "tests").rglob("*.py")]
    assert not [path for path in everything if attics & {path.stem, path.parent.name}]
    loose = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")  # in halves: this file is read too
    assert not [path for path in everything if loose.search(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_what_a_member_must_do_is_abstract(path):
    assert "NotImplementedError" not in path.read_text(encoding="utf-8"), "mark it with abc.abstractmethod"


def test_every_module_imports():
    served = importlib.util.find_spec("fastapi") is not None  # a web framework is imported by the modules that need it
    found = {module.name for module in pkgutil.walk_packages(ingot.__path__, "ingot.")}
    dotted = {"ingot." + name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in NAMES}
    assert found == dotted - {"ingot.__init__"}, "each file belongs to a package"
    for name in sorted(found - {"ingot.__main__"}):
        harness = name == "ingot.evaluate.harness" and importlib.util.find_spec("lm_eval") is None
        if (served or not name.startswith("ingot.serve.")) and not harness:
            importlib.import_module(name)


def test_help_imports_nothing_heavy():
    script = (
        "import sys; from ingot.cli import run; status = run(['--help']); "
        "print(*{'torch', 'numpy', 'tokenizers', 'pydantic', 'transformers'} & set(sys.modules), file=sys.stderr); "
        "sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert "train" in done.stdout


@pytest.mark.parametrize("name", builtin_recipes())
def test_every_builtin_recipe_loads_and_says_what_it_is_for(name):
    assert Recipe.load(name).name == name
    assert builtin_recipes()[name].read_text(encoding="utf-8").startswith("# ")


# --- README.md: what it shows works -----------------------------------------------------------------------------------


def blocks(language: str) -> list[str]:
    """The contents of README.md's code blocks in one language."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every command line of README.md, without its comment."""
    lines = [line.strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


INGOT_COMMANDS = [command for command in commands() if command.startswith("ingot ")]


def test_readme_shows_commands():
    assert INGOT_COMMANDS
    assert {"make demo", "make test"} <= {command.partition("#")[0].strip() for command in commands()}


@pytest.mark.parametrize("command", INGOT_COMMANDS)
def test_readme_commands_parse_and_the_quick_ones_run(command, capsys):
    words = shlex.split(command, comments=True)[1:]
    if words[0] in ("recipes", "--help", "--version"):
        assert run(words) == 0
        assert capsys.readouterr().out
        return
    _, bound, *_ = app.parse_args(words, exit_on_error=False, print_error=False)
    if words[0] in ("train", "prepare") and bound.args[0] in builtin_recipes():
        Recipe.load(bound.args[0], bound.args[1:])


def test_readme_names_make_targets_that_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    text = (ROOT / "README.md").read_text(encoding="utf-8") + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`?make ([a-z]+)`?", "\n".join(re.findall(r"`[^`]*make [a-z]+[^`]*`", text)))) <= targets
    assert {command.split()[1] for command in commands() if command.startswith("make ")} <= targets


@pytest.mark.parametrize("text", blocks("yaml"))
def test_readme_recipes_load(text, tmp_path):
    path = tmp_path / "readme.yaml"
    path.write_text(text, encoding="utf-8")
    loaded, written = dict(flatten(Recipe.load(path).to_dict())), dict(flatten(yaml.safe_load(text)))
    said = written.keys() & loaded.keys()  # `model: tiny` stands for many keys
    assert len(said) > 5 and {key: loaded[key] for key in said} == {key: written[key] for key in said}


@pytest.mark.parametrize("text", blocks("python"))
def test_readme_python_uses_names_that_exist(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "ingot":
            assert hasattr(ingot, node.attr)
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)
