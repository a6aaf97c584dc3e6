"""Imports point one way: from r2unet to minidl, and within each from higher to lower files.

Imports are read from the source, also those inside functions, so that a late import does not escape the
check.
"""

import ast
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# The modules of this project that each module of the engine may import.
ENGINE = {
    "minidl.backend": ["minidl.backend.*"],
    "minidl.backend.devices": ["minidl.cuda_on_cpu"],
    "minidl.backend.arrays": ["minidl.cuda_on_cpu.array"],
    "minidl.backend.nccl": ["minidl.backend.arrays"],
    "minidl.backend.transfers": ["minidl.backend.arrays", "minidl.backend.devices"],
    "minidl.backend.graphs": ["minidl.backend.arrays", "minidl.cuda_on_cpu.graph"],
    "minidl.backend.precision": [],
    "minidl.backend.kernels": ["minidl.backend.arrays", "minidl.backend.devices", "minidl.cuda_on_cpu"],
    "minidl.cuda_on_cpu": ["minidl.cuda_on_cpu.*"],  # it depends on CUDA and NumPy, not on the engine
    "minidl.cuda_on_cpu.*": ["minidl.cuda_on_cpu.*", "minidl.files"],
    "minidl.files": [],
    "minidl.inputs": [],
    "minidl.output": [],
    "minidl.npz": ["minidl.inputs"],
    "minidl.init": [],
    "minidl.threads": [],
    "minidl.allocator": [],
    "minidl.implementation": [],
    "minidl.data": ["minidl.backend"],
    "minidl.tensor": ["minidl.backend", "minidl.ops"],  # minidl.ops as the last statement: see below
    "minidl.ops": ["minidl.ops.*"],
    "minidl.ops.*": [
        "minidl.tensor",
        "minidl.implementation",
        "minidl.backend",
        "minidl.threads",
        "minidl.allocator",
        "minidl.ops.*",
    ],
    "minidl.images": ["minidl.implementation", "minidl.backend"],
    "minidl.average": ["minidl.implementation", "minidl.backend"],
    "minidl.tables": ["minidl.backend"],
    "minidl.optim": ["minidl.tables", "minidl.tensor", "minidl.implementation", "minidl.backend"],
    "minidl.nn": [
        "minidl.init",
        "minidl.average",
        "minidl.ops",
        "minidl.ops.*",
        "minidl.tensor",
        "minidl.backend",
    ],
    "minidl.ema": ["minidl.nn", "minidl.tables", "minidl.tensor", "minidl.implementation", "minidl.backend"],
    "minidl.graph": ["minidl.nn", "minidl.tables", "minidl.tensor", "minidl.backend"],
    "minidl.recompute": ["minidl.nn", "minidl.tensor", "minidl.backend"],
    "minidl.parallel": [
        "minidl.nn",
        "minidl.tensor",
        "minidl.threads",
        "minidl.backend",
        "minidl.backend.nccl",
    ],
    "minidl.connect": ["minidl.parallel"],
    "minidl.launch": ["minidl.connect", "minidl.parallel"],
    "minidl.profiler": ["minidl.tensor", "minidl.backend"],
    "minidl.checkpoint": ["minidl.backend", "minidl.files", "minidl.npz"],
    "minidl.operations": [
        "minidl.optim",
        "minidl.ema",
        "minidl.recompute",
        "minidl.average",
        "minidl.images",
        "minidl.implementation",
        "minidl.output",
        "minidl.tensor",
    ],
    "minidl.gradcheck_cases": [
        "minidl.recompute",
        "minidl.nn",
        "minidl.ops",
        "minidl.tensor",
        "minidl.backend",
    ],
    "minidl.gradcheck": [
        "minidl.gradcheck_cases",
        "minidl.operations",
        "minidl.output",
        "minidl.implementation",
        "minidl.ops",
        "minidl.ops.*",
        "minidl.tensor",
        "minidl.backend",
    ],
    "minidl": ["minidl.tensor"],
}

# The packages of r2unet, and what each may import in addition to itself, the engine and the files in BASE.
PACKAGES = {
    "data": set(),
    "network": set(),
    "prediction": {"data", "network"},
    "scores": {"data", "network", "prediction"},
    "diagnosis": {"data", "network", "prediction", "scores"},
    "training": {"data", "network", "prediction", "scores", "diagnosis"},
    "study": {"data", "network", "prediction", "scores", "diagnosis", "training"},
    "commands": {"data", "network", "prediction", "scores", "diagnosis", "training", "study"},
}
# Files outside the packages below, which all of them may import.
BASE = {
    "r2unet",
    "r2unet.errors",
    "r2unet.files",
    "r2unet.figures",
    "r2unet.processes",
    "r2unet.shared_memory",
}

LIBRARIES = {"minidl": {"numpy"}, "r2unet": {"numpy", "PIL", "matplotlib", "contourpy", "tqdm"}}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    module_name(path): path.read_text(encoding="utf-8")
    for package in LIBRARIES
    for path in sorted((ROOT / package).rglob("*.py"))
}


def imports(source: str) -> set[str]:
    """The modules that a source imports, anywhere in it; `from minidl import ops` is minidl.ops."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write the package's name in full"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = names & SOURCES.keys()
            found |= modules | ({node.module} if names - modules else set())
    return found


def project_imports(source: str) -> set[str]:
    """Return the modules of this project that a source imports."""
    return {name for name in imports(source) if name.partition(".")[0] in LIBRARIES}


def modules_of(package: str) -> list[str]:
    return [name for name in SOURCES if name.partition(".")[0] == package]


def run_at_import(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield every node of a module except the bodies of its functions."""
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            waiting += ast.iter_child_nodes(node)


@pytest.mark.parametrize("module", modules_of("minidl"))
def test_the_files_of_the_engine_import_only_what_the_table_allows(module):
    rows = [row for row in ENGINE if fnmatchcase(module, row)]
    assert len(rows) == 1, f"{module}: add it to the table ENGINE"
    allowed = [*ENGINE[rows[0]], module]  # a program may import its own module by name
    forbidden = {n for n in project_imports(SOURCES[module]) if not any(fnmatchcase(n, p) for p in allowed)}
    assert not forbidden, f"{module} imports {sorted(forbidden)}"


def test_tensor_imports_the_operations_once_and_last():
    tree = ast.parse(SOURCES["minidl.tensor"])
    assert ast.unparse(tree.body[-1]) == "from minidl import ops"
    before = ast.unparse(ast.Module(tree.body[:-1], type_ignores=[]))
    assert project_imports(before) == {"minidl.backend"}


def package_of(module: str) -> str:
    return module.split(".")[1]


def modules_in_packages() -> list[str]:
    return [name for name in modules_of("r2unet") if name not in {*BASE, "r2unet.__main__"}]


@pytest.mark.parametrize("module", modules_in_packages())
def test_the_packages_of_r2unet_import_only_from_lower_packages(module):
    package = package_of(module)
    assert package in PACKAGES, (
        f"{module}: move it into one of {', '.join(PACKAGES)}, or add a package to this test"
    )
    found = {
        name for name in project_imports(SOURCES[module]) if name.startswith("r2unet") and name not in BASE
    }
    forbidden = {name for name in found if package_of(name) not in PACKAGES[package] | {package}}
    assert not forbidden, f"{module} imports {sorted(forbidden)}"


def test_the_packages_of_r2unet_are_in_an_order_without_cycles():
    names = list(PACKAGES)
    for i, package in enumerate(names):
        assert PACKAGES[package] <= set(names[:i]), f"{package} imports a package that follows it in PACKAGES"


def test_the_imports_of_r2unet_have_no_cycle():
    imported = {name: project_imports(SOURCES[name]) & SOURCES.keys() for name in modules_of("r2unet")}
    while leaves := [name for name, others in imported.items() if not others & imported.keys()]:
        for name in leaves:
            del imported[name]
    assert not imported, f"these import each other: {sorted(imported)}"


def test_the_package_r2unet_itself_imports_nothing_until_a_name_is_used():
    tree = ast.parse(SOURCES["r2unet"])
    assert imports(SOURCES["r2unet"]) == {"importlib"}
    assert not [node for node in run_at_import(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def test_r2unet_s_own_files_import_names_from_their_modules_and_only_the_version_from_the_package():
    """A name imported from the top level of the package would hide its module from these tests."""
    for module in modules_of("r2unet"):
        for node in ast.walk(ast.parse(SOURCES[module])):
            if isinstance(node, ast.ImportFrom) and node.module == "r2unet":
                names = {f"r2unet.{alias.name}" for alias in node.names}
                assert names <= {"r2unet.__version__", *SOURCES}, f"{module}, line {node.lineno}"


@pytest.mark.parametrize("module", [name for name in modules_in_packages() if package_of(name) == "data"])
def test_the_data_package_does_not_import_the_engine(module):
    assert not [name for name in project_imports(SOURCES[module]) if name.startswith("minidl")]


def test_no_other_package_imports_the_commands():
    users = {
        n for n, source in SOURCES.items() for m in project_imports(source) if m.startswith("r2unet.commands")
    }
    assert {name for name in users if not name.startswith("r2unet.commands")} == {"r2unet.__main__"}


def test_only_the_backend_imports_cupy():
    users = {name for name, source in SOURCES.items() for m in imports(source) if m.split(".")[0] == "cupy"}
    assert users
    assert all(name.startswith("minidl.backend.") for name in users)


@pytest.mark.parametrize("module", SOURCES)
def test_only_the_allowed_libraries_are_imported(module):
    packages = {name.partition(".")[0] for name in imports(SOURCES[module])}
    allowed = LIBRARIES[module.partition(".")[0]] | set(LIBRARIES) | sys.stdlib_module_names
    if module.startswith("minidl.backend."):
        allowed = allowed | {"cupy", "cupy_backends"}
    if module == "minidl.parallel":
        allowed = allowed | {"mpi4py"}
    assert packages <= allowed


@pytest.mark.parametrize("module", SOURCES)
def test_every_file_has_a_docstring(module):
    docstring = ast.get_docstring(ast.parse(SOURCES[module]))
    assert docstring, f"{module} has no docstring"


@pytest.mark.parametrize("module", SOURCES)
def test_nothing_is_printed_at_import(module):
    calls = [n for n in run_at_import(ast.parse(SOURCES[module])) if isinstance(n, ast.Call)]
    assert not [n.lineno for n in calls if isinstance(n.func, ast.Name) and n.func.id == "print"]


def test_the_architecture_page_names_every_file_of_r2unet_in_the_row_of_its_package():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = {line.split("]")[0][3:]: line for line in page.splitlines() if line.startswith("| [")}
    files = [name for name in modules_in_packages() if name.count(".") == 2]
    assert rows.keys() == PACKAGES.keys()
    unnamed = [n for n in files if f"`{n.rpartition('.')[2]}`" not in rows[package_of(n)]]
    assert unnamed == [], "name these files in the row of their package in docs/architecture.md"


def test_the_architecture_page_names_every_other_file():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    others = [*modules_of("minidl"), *BASE - {"r2unet"}]
    leaves = [name.rpartition(".")[2] for name in others if name != "minidl"]
    unnamed = [name for name in leaves if f"`{name}`" not in page and f"{name}/" not in page]
    assert unnamed == [], "name these files in the tables of docs/architecture.md"


class TestTheParsing:
    """Tests of the code above: the rules are only as reliable as the parsing of the imports."""

    @pytest.mark.parametrize(
        ("source", "expected"),
        [
            ("import minidl.nn as layers", {"minidl.nn"}),
            ("from minidl import Tensor", {"minidl"}),
            ("from minidl import Tensor, ops", {"minidl", "minidl.ops"}),
            ("from minidl.ops import conv2d", {"minidl.ops"}),
            ("from minidl.ops.conv import Conv2d", {"minidl.ops.conv"}),
            ("def f():\n    if True:\n        from r2unet.commands import main", {"r2unet.commands.main"}),
            ("import os, r2unet.commands.main", {"r2unet.commands.main"}),
            ("x = 'import minidl'", set()),
        ],
    )
    def test_imports_are_found_anywhere_in_a_file(self, source, expected):
        assert project_imports(source) == expected

    def test_code_that_runs_at_import_is_distinguished_from_the_rest(self):
        source = (
            "print(1)\ndef f():\n    print(2)\nclass C:\n    print(3)\n    def g(self):\n        print(4)\n"
        )
        lines = [n.lineno for n in run_at_import(ast.parse(source)) if isinstance(n, ast.Call)]
        assert sorted(lines) == [1, 5]

    def test_all_files_are_parsed(self):
        assert {"minidl", "minidl.ops", "minidl.ops.conv", "r2unet", "r2unet.commands.main"} <= SOURCES.keys()
