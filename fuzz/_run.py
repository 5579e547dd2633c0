"""Run a harness under Atheris: `python fuzz/NAME.py [CORPUS] [-runs=N] [any option of libFuzzer]`.

Standards: Atheris 3 (Python 3.11 to 3.14, Linux), libFuzzer's command line.
Promises: the harness's SEEDS and the files in tests/corpora/fuzz/NAME are read as the first inputs; what is found new is
kept in CORPUS, if one is given.
Dangers: Atheris ends the process by itself, at the first failure with the input in a file `crash-…`.
Not here: properties (each harness's own), what `make test` runs (tests/properties/test_fuzz.py).
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parent
CORPORA = FOLDER.parent / "tests" / "corpora" / "fuzz"


def load(name: str) -> ModuleType:
    """Return the harness `name`, imported anew."""
    spec = importlib.util.spec_from_file_location(f"fuzz_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def run(file: str) -> None:
    """Fuzz the harness in `file` until Atheris ends; never returns."""
    import atheris

    name = Path(file).stem
    for loaded in [each for each in sys.modules if each.partition(".")[0] == "outgate"]:
        del sys.modules[loaded]  # it has to come in once more, with instruments
    with atheris.instrument_imports(include=["outgate"]):
        harness = load(name)
    seeds = Path(tempfile.mkdtemp(prefix=f"seeds-{name}-"))
    for number, seed in enumerate(harness.SEEDS):
        (seeds / f"seed-{number}").write_bytes(seed)
    folders = [str(folder) for folder in (seeds, CORPORA / name) if folder.is_dir()]
    atheris.Setup([*sys.argv, *folders], harness.one_input)
    atheris.Fuzz()
