"""The arrows between modules: they point one way, and the core knows no toolbox."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "det_seg_agent"
TOOLBOXES = {"ultralytics", "mmengine", "mmseg", "mmcv", "pycocotools", "transformers", "accelerate", "peft"}

# From the bottom to the top: a module imports from its own layer and from those below.
LAYERS = (
    {"errors", "files", "messages", "seeding", "schedule", "version"},
    {"ranks", "settings", "sampler", "fingerprint", "features", "signals", "sums", "classes", "earlier", "pixels"},
    {"table", "pass_report"},
    {"strategies"},
    {"pass_signals", "choosing"},
    {"selector"},
    {"reporting"},
    {"inspecting"},
    {"hosts", "scenes"},
    {"det", "seg", "hf"},
    {"compare"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
ADAPTERS = ("det", "seg", "hf")


def module_of(path: Path) -> str:
    """Return a file's module, `__init__` as its package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> set[str]:
    """Return what a file imports anywhere in it, also within functions; a name may be a module's or one in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


FILES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
IMPORTS = {module: imports_of(path) for module, path in FILES.items()}


def part_of(module: str) -> str:
    """Return the first name below the package, empty for the package itself."""
    return [*module.split("."), ""][1]


def test_every_module_has_its_layer() -> None:
    assert {part_of(module) for module in FILES} - {""} == set(LEVEL)


def test_imports_point_down() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, others in IMPORTS.items()
        for other in others & set(FILES)
        if part_of(module) and part_of(other) and LEVEL[part_of(other)] > LEVEL[part_of(module)]
    ]
    assert wrong == []


def test_no_import_is_a_cycle() -> None:
    graph = {module: (others & set(FILES)) - {module, "det_seg_agent"} for module, others in IMPORTS.items()}
    # A package's __init__ is not what its own modules import from.
    graph = {m: {o for o in others if not m.startswith(f"{o}.")} for m, others in graph.items()}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_core_knows_no_toolbox() -> None:
    for module, others in IMPORTS.items():
        if LEVEL.get(part_of(module), 0) < LEVEL["hosts"]:
            assert not {other.split(".")[0] for other in others} & TOOLBOXES, module


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_adapter_does_not_know_the_others(adapter: str) -> None:
    for module, others in IMPORTS.items():
        if part_of(module) == adapter:
            assert not {part_of(o) for o in others if o.startswith("det_seg_agent.")} & set(ADAPTERS) - {adapter}, (
                module
            )
