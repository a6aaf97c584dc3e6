"""Generates the API reference from the docstrings: a page for each module, and one for the API of r2unet.

A docstring of this project is Markdown: its paragraphs are prose, and its indented blocks are formulas and
shapes. The two-line examples are those of `examples.md` and `device-examples.md`, which the tests execute.

The modules of PROGRAMS are what programs import: each of their public names has an example. The other modules
are inside the engine, and their pages are for those who read or extend it. A name is described once: where a
program imports it.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ForwardRef

import minidl
import r2unet

ROOT = Path(__file__).parents[2]
EXAMPLES = [Path(__file__).with_name(name) for name in ("examples.md", "device-examples.md")]
# From what a user needs first to what few need.
PROGRAMS = tuple(
    f"minidl{name}"
    for name in (
        *("", ".ops", ".nn", ".optim", ".data", ".checkpoint", ".ema", ".init", ".gradcheck", ".backend"),
        *(".profiler", ".recompute", ".threads", ".images", ".graph", ".implementation", ".operations"),
        *(".parallel", ".connect", ".files", ".npz", ".inputs", ".allocator", ".cuda_on_cpu"),
    )
)
EXAMPLE = re.compile(r"^### `(?P<name>[\w.]+)`\n(?P<text>.*?)(?=^##|\Z)", re.DOTALL | re.MULTILINE)
SPECIAL = re.compile(r"^(\s{0,3})([%#+>])", re.MULTILINE)  # would start a comment, a heading or a quotation


def write(folder: Path) -> list[str]:
    """Write the pages into `folder`; return their names for the table of contents."""
    folder.mkdir(parents=True)
    examples = read_examples(*(page.read_text(encoding="utf-8") for page in EXAMPLES))
    modules = [r2unet, *(importlib.import_module(name) for name in module_names())]
    for module in modules:
        text = module_page(module, examples, homes())
        (folder / f"{module.__name__}.md").write_text(text, encoding="utf-8")
    inside = [module.__name__ for module in modules if module.__name__ not in ("r2unet", *PROGRAMS)]
    (folder / "index.md").write_text(index_page(["r2unet", *PROGRAMS], inside), encoding="utf-8")
    return ["reference/index"]


def module_names() -> list[str]:
    """Return the modules of the engine: those that programs import, then those inside."""
    found = [info.name for info in pkgutil.walk_packages(minidl.__path__, "minidl.")]
    return [*PROGRAMS, *(name for name in found if name not in PROGRAMS and "__main__" not in name)]


def homes() -> dict[int, str]:
    """Return the module from which programs import a function or a class, by the id of the object."""
    found: dict[int, str] = {}
    for name in ("r2unet", *PROGRAMS):
        module = importlib.import_module(name)
        for public in public_names(module):
            if callable(value := getattr(module, public)):
                found.setdefault(id(value), name)
    return found


def read_examples(*texts: str) -> dict[str, str]:
    """Return the examples of pages: {name: Markdown}."""
    return {match["name"]: match["text"].strip() for text in texts for match in EXAMPLE.finditer(text)}


def public_names(module: ModuleType) -> list[str]:
    """Return the public names of a module: those in `__all__`, or else what it defines itself.

    A constant is among them if it is a tuple or a dictionary: the choices that a user has.
    """
    if hasattr(module, "__all__"):
        values = {name: getattr(module, name) for name in module.__all__ if not name.startswith("__")}
        return [name for name, value in values.items() if isinstance(value, tuple | dict) or defined(value)]
    return [name for name, value in vars(module).items() if not name.startswith("_") and own(value, module)]


def defined(value: Any) -> bool:
    """Return whether a value is a function or a class of this project, and not the name of another type."""
    return callable(value) and value.__module__.partition(".")[0] in ("minidl", "r2unet")


def own(value: Any, module: ModuleType) -> bool:
    """Return whether a value is a function or a class that this module defines."""
    return (inspect.isfunction(value) or inspect.isclass(value)) and value.__module__ == module.__name__


def index_page(programs: list[str], inside: list[str]) -> str:
    """Return the page that lists all pages of the reference."""
    for_programs, of_engine = "\n".join(programs), "\n".join(inside)
    return f"""# API reference

Every public name, with the text of its docstring: shapes, units, errors and sources.

## For programs

Every name has a short example. There `np` is NumPy, `rng` is `np.random.default_rng(0)`, and the names are
imported from their modules.

```{{toctree}}
:maxdepth: 1

{for_programs}
```

## Inside the engine

What the operations, the devices and the emulator consist of, for those who read or extend them.

```{{toctree}}
:maxdepth: 1

{of_engine}
```
"""


def module_page(module: ModuleType, examples: dict[str, str], homes: dict[int, str]) -> str:
    """Return the page of a module in Markdown: its docstring, then its public names.

    A name that programs import from another module, its home, is described there.
    """
    name = module.__name__
    parts = [f"# {name}", source_link(module), prose(module), f"```{{py:currentmodule}} {name}\n```"]
    elsewhere = []
    for public in public_names(module):
        value = getattr(module, public)
        home = homes.get(id(value), name)
        if home == name:
            parts.append(entry(f"{name}.{public}", value, examples))
        else:
            elsewhere.append(f"`{public}` ([{home}]({home}.md))")
    if elsewhere:
        parts.insert(3, f"Described where programs import them: {', '.join(elsewhere)}.")
    return "\n\n".join(part for part in parts if part) + "\n"


def entry(name: str, value: Any, examples: dict[str, str]) -> str:
    """Return a directive that describes a function, a class or a constant."""
    body = [prose(value) if callable(value) else constant(value), examples.get(name, "")]
    kind, signature = "data", ""
    if inspect.isclass(value):
        kind, signature = "class", signature_of(value)
        body += [
            directive("py:property" if isinstance(member, property) else "py:method", f"{own_name}{sig}", doc)
            for own_name, member, sig, doc in members(value)
        ]
    elif callable(value):
        kind, signature = "function", signature_of(value)
    if callable(value):
        body.insert(0, source_link(value))
    return directive(f"py:{kind}", f"{name.rpartition('.')[2]}{signature}", "\n\n".join(filter(None, body)))


def directive(kind: str, signature: str, body: str) -> str:
    """Return a MyST directive; its fence is longer than those inside."""
    fence = ":" * (3 + max((len(run) - 2 for run in re.findall(r"^:{3,}", body, re.MULTILINE)), default=0))
    return f"{fence}{{{kind}}} {signature}\n\n{body}\n{fence}"


def members(cls: type) -> Iterator[tuple[str, Any, str, str]]:
    """Yield the public methods and properties that a class defines: name, member, signature, docstring."""
    for name, member in vars(cls).items():
        if name.startswith("_") or not (
            isinstance(member, property | staticmethod | classmethod) or callable(member)
        ):
            continue
        if inspect.isclass(member):
            continue
        function = getattr(member, "__func__", member)
        signature = "" if isinstance(member, property) else signature_of(function, bound=True)
        yield name, member, signature, prose(member)


def signature_of(value: Any, bound: bool = False) -> str:
    """Return a signature as the source has it, without `self`; "(...)" where Python knows none."""
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return "(...)"
    parameters = list(signature.parameters.values())
    if bound and parameters and parameters[0].name in ("self", "cls"):
        parameters = parameters[1:]
    shown = [
        p.replace(annotation=as_written(p.annotation), default=as_written(p.default)) for p in parameters
    ]
    returned = signature.empty if inspect.isclass(value) else as_written(signature.return_annotation)
    return str(signature.replace(parameters=shown, return_annotation=returned)).replace("\n", " ")


class Written:
    """A type or a default value whose representation is its text in the source."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def as_written(value: Any) -> Any:
    """Return a value whose representation can stand in a signature, and contains no address."""
    if value is inspect.Parameter.empty or value is None:
        return value
    if isinstance(value, str) and not value.isidentifier() and not re.match(r"[\w.]+[\[ |(]", value):
        return value  # a default that is a text
    if isinstance(value, str):
        return Written(value)
    if isinstance(value, ForwardRef):  # of a NamedTuple
        return Written(value.__forward_arg__)
    if isinstance(value, Path):
        return Written(f"Path({value.name!r})")
    if callable(value) or " at 0x" in repr(value):
        return Written(getattr(value, "__qualname__", type(value).__name__).replace("<lambda>", "..."))
    return value


def prose(value: Any) -> str:
    """Return a docstring as Markdown, with the characters escaped that would start a block."""
    own_doc = getattr(value, "__doc__", None)
    if not own_doc or (inspect.isclass(value) and own_doc.startswith(f"{value.__name__}(")):
        return ""  # a NamedTuple without a docstring of its own has its signature
    return SPECIAL.sub(r"\1\\\2", inspect.cleandoc(own_doc))


def constant(value: Any) -> str:
    """Return a short description of a constant."""
    if isinstance(value, dict):
        return "One of: " + ", ".join(f"`{key}`" for key in value)
    return f"`{as_written(value)!r:.80}`" if isinstance(value, Path) else f"`{value!r:.80}`"


def source_link(value: Any) -> str:
    """Return a link to the line of the source where a module, a class or a function is defined."""
    value = inspect.unwrap(value) if callable(value) else value
    try:
        path = Path(inspect.getsourcefile(value)).relative_to(ROOT).as_posix()
        line = 1 if inspect.ismodule(value) else inspect.getsourcelines(value)[1]
    except (TypeError, OSError, ValueError):
        return ""
    return f'<a class="source" href="../code/{path}.html#L-{line}">`{path}`, line {line}</a>'
