"""The registration with the Auto classes of transformers, without importing transformers.

`import rmaat` must be enough for `AutoConfig`, and must not wait for PyTorch. So the models are
imported and registered when transformers looks up their model type for the first time.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

MODEL_TYPE = "rmaat"
REGISTRY_MODULE = "transformers.models.auto.configuration_auto"


class _RegisteredConfigs(dict[str, Any]):
    """The configs that other packages registered; it imports the models when their type is looked up."""

    def __contains__(self, key: object) -> bool:
        if key == MODEL_TYPE:
            # The import registers the models, so that they are in this dict afterwards.
            importlib.import_module("rmaat.models")
        return super().__contains__(key)


class _RegistryFinder:
    """A finder of `REGISTRY_MODULE` that adds the model type after the module's import."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the ordinary spec of that module with another end of its import; None for others."""
        spec = PathFinder.find_spec(name, path, target) if name == REGISTRY_MODULE else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            _add_model_type(module)

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def register() -> None:
    """Make the Auto classes of transformers know the models, now or once transformers is imported.

    Importing the models at once would import them into a half imported transformers, because its
    own model code imports the registry.
    """
    module = sys.modules.get(REGISTRY_MODULE)
    if module is not None and hasattr(module, "CONFIG_MAPPING"):
        _add_model_type(module)
    elif _RegistryFinder not in sys.meta_path:
        sys.meta_path.insert(0, _RegistryFinder)


def _add_model_type(module: ModuleType) -> None:
    mapping = module.CONFIG_MAPPING
    mapping._extra_content = _RegisteredConfigs(mapping._extra_content)
