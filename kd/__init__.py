"""Knowledge distillation from BERT-like teachers into small text classifiers.

``import kd`` loads neither torch nor transformers. The students are registered with transformers' Auto classes as soon
as both are there, so that ``transformers.pipeline("text-classification", model=RUN + "/model")`` finds them.
"""

import importlib
import importlib.util
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

__version__ = "0.1.0"

API = ("Report", "Run", "compose", "distill", "read_report", "read_run", "sweep", "train")
AUTO = "transformers.models.auto.modeling_auto"


def __getattr__(name: str) -> Any:
    """Import what `kd.api` offers, and the students, when they are asked for."""
    if name in API:
        found = getattr(importlib.import_module("kd.api"), name)
        return sys.modules["kd.sweep"] if name == "sweep" else found  # the package of this name, which can be called
    if name == "models":
        return importlib.import_module("kd.models")
    raise AttributeError(f"module 'kd' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*globals(), *API]


class _WithTransformers(MetaPathFinder):
    """Imports the students when transformers has loaded its Auto classes."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != AUTO:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec and spec.loader:
            load = spec.loader.exec_module

            def load_and_register(module: Any) -> None:
                load(module)
                own = [loaded for name, loaded in sys.modules.items() if name.startswith("kd.")]
                # A module of kd that is just loading transformers imports the students itself where it needs them.
                if not any(getattr(loaded.__spec__, "_initializing", False) for loaded in own):
                    importlib.import_module("kd.models")

            spec.loader.exec_module = load_and_register  # type: ignore[method-assign]
        return spec


if AUTO in sys.modules:
    importlib.import_module("kd.models")
else:
    sys.meta_path.insert(0, _WithTransformers())
