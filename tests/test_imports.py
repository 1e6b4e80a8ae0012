"""What importing rfadapt does and does not do, and which of its modules may know which."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import rfadapt

PACKAGE = Path(rfadapt.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# Who may import whom: a module only those of the layers before its own. A package counts as one module.
LAYERS = [
    {"_version", "_random", "_samples", "callbacks", "masked_labels", "_strata", "_devices"},
    {"projection"},
    {"_kernel_machine", "_improvement"},
    {"target_labels"},
    {"_validation", "_persistence", "_optimisation", "_objectives", "_resources", "_progress", "rotation"}
    | {"_timed_pairs", "predictions", "couplings", "paths", "solvers", "schedules", "velocity", "metrics", "datasets"},
    {"base", "geometry", "tables", "_training", "_stacking"},
    {"_flow_options", "_flow_record", "_domains"},
    {"_flow_map"},
    {"_flow_fit", "_potential_fit", "_regression_fit"},
    {"_distillation"},
    {"_rounds", "_flow_state", "baselines"},
    {"transport"},
    {"_held_out"},
    {"adaptation", "images", "compare", "plotting"},
    {"model_selection"},
    {"report"},
    {"compare_report", "demo"},
    {"cli"},
]
# Slow to import or optional: only inside the functions that need them, so that `import rfadapt` is quick.
LAZY = {"ot", "pandas", "polars", "pyarrow", "matplotlib", "tqdm", "torchvision", "torchdiffeq", "PIL", "IPython"}


def name_of(path):
    """Name of a module in the layers: the first part below rfadapt."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path):
    """(module, whether it is imported when the file is) for all imports, those of the package itself as rfadapt.x."""
    package = ("rfadapt", *path.relative_to(PACKAGE).parts[:-1])
    tree = ast.parse(path.read_text())
    inside = {id(node) for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.Lambda)) for node in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*base, *filter(None, [node.module])))
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "rfadapt" else [base]
        else:
            continue
        for name in names:
            yield name, id(node) not in inside


def layer_of(module):
    return next((k for k, layer in enumerate(LAYERS) if module in layer), None)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_know_only_the_layers_before_theirs(path):
    module = name_of(path)
    if module in ("__init__", "__main__"):
        return
    mine = layer_of(module)
    assert mine is not None, f"{module} is not in LAYERS: say there where it belongs"
    for name, _ in imports(path):
        if not name.startswith("rfadapt."):
            continue
        other = name.split(".")[1]
        if other != module:
            theirs = layer_of(other)
            assert theirs is not None, f"{other} is not in LAYERS: say there where it belongs"
            assert theirs < mine, f"{module} (layer {mine}) must not import {other} (layer {theirs})"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_slow_and_optional_packages_are_imported_where_they_are_used(path):
    for name, at_import in imports(path):
        top = name.partition(".")[0]
        assert top != "skada", "skada turns on metadata routing for the whole process"
        assert not (at_import and top in LAZY), f"{name} must be imported inside the function that needs it"


def test_layers_name_every_module_once():
    names = [name for layer in LAYERS for name in layer]
    assert len(names) == len(set(names))


IMPORT = """
import json, random, sys, warnings
import joblib, numpy, scipy.sparse, sklearn.utils, torch

def settings():
    return {
        "threads": torch.get_num_threads(), "dtype": str(torch.get_default_dtype()), "grad": torch.is_grad_enabled(),
        "sklearn": sklearn.get_config(), "numpy": numpy.geterr(), "filters": len(warnings.filters),
        "seeds": [torch.initial_seed(), numpy.random.get_state()[1].tolist(), hash(random.getstate())],
    }

def packages():
    return {name.partition(".")[0] for name in sys.modules}

settings_before, packages_before = settings(), packages()
import rfadapt
settings_after = settings()
print(json.dumps({
    "changed": [name for name in settings_before if settings_before[name] != settings_after[name]],
    "cuda": torch.cuda.is_initialized(),
    "packages": sorted(packages() - packages_before),
}))
"""


def test_importing_is_quiet_and_changes_nothing():
    done = subprocess.run([sys.executable, "-W", "error", "-c", IMPORT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    state = json.loads(line)
    assert state["changed"] == [] and not state["cuda"]
    # What our dependencies import for themselves is theirs to decide.
    assert "rfadapt" in state["packages"] and not (LAZY | {"skada"}) & set(state["packages"])


def test_all_names_what_is_there():
    assert len(rfadapt.__all__) == len(set(rfadapt.__all__))
    for name in rfadapt.__all__:
        assert getattr(rfadapt, name) is not None
