"""Which processor handles which batch type: naming, registration and discovery."""

import importlib
import importlib.util
import inspect
import pkgutil
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from .errors import DiscoveryError, DuplicateBatchType, NotAProcessor, UnknownBatchType
from .processors import BaseProcessor, check_processor

_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def batch_type_of(name: str) -> str:
    """The batch type of a processor class by its name.

    >>> batch_type_of("CustomerDataProcessor"), batch_type_of("XMLOrderProcessor")
    ('customer_data', 'xml_order')
    """
    stem = name.removesuffix("Processor") or name
    return _WORD_STARTS.sub("_", stem).lower().strip("_")


class Registry:
    """The processors a manager knows, by batch type."""

    def __init__(self) -> None:
        self._processors: dict[str, BaseProcessor[Any]] = {}

    @property
    def batch_types(self) -> tuple[str, ...]:
        """The registered batch types, sorted."""
        return tuple(sorted(self._processors))

    def get(self, batch_type: str) -> BaseProcessor[Any]:
        """The processor of a batch type.

        Raises:
            UnknownBatchType: None is registered for it.
        """
        try:
            return self._processors[batch_type]
        except KeyError:
            raise UnknownBatchType(batch_type, self.batch_types) from None

    def register(self, processor: type[BaseProcessor[Any]] | BaseProcessor[Any]) -> str:
        """Register a processor, by class or as an instance; return its batch type.

        Registering the same class again changes nothing, so modules may be discovered twice.

        Raises:
            DuplicateBatchType: Another processor has this batch type.
            NotAProcessor: It is no subclass of BaseProcessor, is abstract, or has a malformed hook.
        """
        instance = self._instance(processor)
        check_processor(instance)
        name = instance.batch_type or batch_type_of(type(instance).__name__)
        existing = self._processors.get(name)
        if existing is not None and type(existing) is not type(instance):
            raise DuplicateBatchType(name, _where(type(existing)), _where(type(instance)))
        if existing is None or instance is processor:
            self._processors[name] = instance
        return name

    def discover(self, package: str | ModuleType) -> tuple[str, ...]:
        """Import a module, or a package with everything below it, and register its processors.

        Classes that only pass through by an import from elsewhere are not registered, nor are
        abstract ones and those whose name starts with an underscore.

        Args:
            package: A dotted name such as ``"myapp.processors"``, or the module itself.

        Returns:
            The batch types found.

        Raises:
            DiscoveryError: A module cannot be imported; the message names its file.
            DuplicateBatchType: Two processors have the same batch type.
        """
        found = []
        for module in _modules(package):
            for _, cls in inspect.getmembers(module, inspect.isclass):
                if issubclass(cls, BaseProcessor) and _belongs(cls, module):
                    found.append(self.register(cls))
        return tuple(found)

    def _instance(self, processor: object) -> BaseProcessor[Any]:
        if isinstance(processor, BaseProcessor):
            return processor
        if not (inspect.isclass(processor) and issubclass(processor, BaseProcessor)):
            raise NotAProcessor(
                f"{processor!r} is no processor.", hint="register a subclass of BaseProcessor."
            )
        if inspect.isabstract(processor):
            raise NotAProcessor(f"{_where(processor)} is abstract and cannot be registered.")
        try:
            return processor()
        except TypeError as exc:
            raise NotAProcessor(
                f"{_where(processor)} cannot be made without arguments: {exc}",
                hint="register an instance: registry.register(YourProcessor(…)).",
            ) from exc


def _belongs(cls: type[BaseProcessor[Any]], module: ModuleType) -> bool:
    return (
        cls.__module__ == module.__name__
        and not cls.__name__.startswith("_")
        and not inspect.isabstract(cls)
        and cls.overrides("process_item")
    )


def _modules(package: str | ModuleType) -> Iterator[ModuleType]:
    root = _import(package) if isinstance(package, str) else package
    yield root
    for info in pkgutil.walk_packages(
        getattr(root, "__path__", []), f"{root.__name__}.", onerror=_refuse
    ):
        if not info.name.endswith(".__main__"):
            yield _import(info.name)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as exc:
        raise DiscoveryError(
            f"{_place(name)} cannot be imported: {type(exc).__name__}: {exc}",
            hint="correct the import, or name the package that holds your processors; "
            "it must be importable from here (is the working directory on sys.path?).",
        ) from exc


def _refuse(name: str) -> None:
    _import(name)


def _place(name: str) -> str:
    """The file of a module that may not be importable."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        spec = None
    return f"{name} ({spec.origin})" if spec is not None and spec.origin else f"Module {name}"


def _where(cls: type[Any]) -> str:
    try:
        file = inspect.getsourcefile(cls)
    except (TypeError, OSError):
        file = None
    return f"{cls.__module__}.{cls.__qualname__}" + (f" in {file}" if file else "")
