"""Which processor and which endpoint belong to a batch type: naming, registration, discovery."""

import importlib
import importlib.util
import inspect
import pkgutil
import re
import traceback
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, TypeGuard

from ..errors import (
    DiscoveryError,
    DuplicateBatchType,
    NotAnEndpoint,
    NotAProcessor,
    UnknownBatchType,
)
from ..store.outbox import OutboxHook
from .hooks import EndpointHooks, Hook, hooks_of
from .keys import check_keys
from .processor import BaseProcessor, can_process, check_processor

_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def batch_type_of(name: str) -> str:
    """The batch type of a processor or endpoint class by its name.

    >>> batch_type_of("CustomerDataProcessor"), batch_type_of("XMLOrderProcessor")
    ('customer_data', 'xml_order')
    """
    stem = name.removesuffix("Processor").removesuffix("Endpoint") or name
    return _WORD_STARTS.sub("_", stem).lower().strip("_")


class Registry:
    """The processors, and the endpoints of the REST API, that a manager knows, by batch type."""

    def __init__(self) -> None:
        self._processors: dict[str, BaseProcessor[Any]] = {}
        self._endpoints: dict[str, EndpointHooks] = {}

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

    def endpoint(self, batch_type: str) -> EndpointHooks | None:
        """The endpoint of a batch type, if one is registered."""
        return self._endpoints.get(batch_type)

    def hooks(self, batch_type: str) -> Mapping[OutboxHook, Hook]:
        """The hooks outside of transactions that this process can run for a batch type."""
        return hooks_of(self._processors.get(batch_type), self._endpoints.get(batch_type))

    @property
    def hooked_types(self) -> tuple[str, ...]:
        """The batch types with a processor or an endpoint, sorted."""
        return tuple(sorted({*self._processors, *self._endpoints}))

    @property
    def endpoints(self) -> tuple[EndpointHooks, ...]:
        """The registered endpoints, in the order of their batch types."""
        return tuple(self._endpoints[name] for name in sorted(self._endpoints))

    def register_endpoint(self, endpoint: type[EndpointHooks] | EndpointHooks) -> str:
        """Register an endpoint, by class or as an instance; return its batch type.

        Raises:
            DuplicateBatchType: Another endpoint has this batch type.
            NotAnEndpoint: It is not a subclass of BaseEndpoint.
        """
        cls = endpoint if inspect.isclass(endpoint) else type(endpoint)
        if not issubclass(cls, EndpointHooks):
            raise NotAnEndpoint(
                f"{cls.__module__}.{cls.__qualname__} is not an endpoint.",
                hint="subclass BaseEndpoint.",
            )
        cls._check()
        name = cls.batch_type or batch_type_of(cls.__name__)
        existing = self._endpoints.get(name)
        if existing is not None and type(existing) is not cls:
            raise DuplicateBatchType(name, _where(type(existing)), _where(cls))
        if isinstance(endpoint, EndpointHooks):
            self._endpoints[name] = endpoint
        elif existing is None:
            self._endpoints[name] = cls()
        return name

    def register(
        self,
        processor: type[BaseProcessor[Any]]
        | BaseProcessor[Any]
        | type[EndpointHooks]
        | EndpointHooks,
    ) -> str:
        """Register a processor or an endpoint, by class or as an instance; return its batch type.

        Registering the same class again changes nothing, so modules may be discovered twice.

        Raises:
            DuplicateBatchType: Another processor, or another endpoint, has this batch type.
            NotAProcessor: It is neither a processor nor an endpoint, is abstract, or has a
                malformed hook.
            NotAnEndpoint: The endpoint has a malformed hook.
        """
        if _is_an_endpoint(processor):
            return self.register_endpoint(processor)
        instance = self._instance(processor)
        check_processor(instance)
        check_keys(instance)
        name = instance.batch_type or batch_type_of(type(instance).__name__)
        existing = self._processors.get(name)
        if existing is not None and type(existing) is not type(instance):
            raise DuplicateBatchType(name, _where(type(existing)), _where(type(instance)))
        if existing is None or instance is processor:
            self._processors[name] = instance
        return name

    def discover(self, package: str | ModuleType) -> tuple[str, ...]:
        """Import a module, or a package with everything below it, and register what it holds.

        It registers neither classes that a module has imported from elsewhere, nor abstract
        classes, nor classes whose name starts with an underscore.

        Args:
            package: A dotted name such as ``"myapp.processors"``, or the module itself.

        Returns:
            The batch types whose processors were found.

        Raises:
            DiscoveryError: A module cannot be imported; the message names its file.
            DuplicateBatchType: Two processors, or two endpoints, have the same batch type.
        """
        batch_types = []
        for module in _modules(package):
            for _, cls in inspect.getmembers(module, inspect.isclass):
                if not _belongs(cls, module):
                    continue
                if _is_processor(cls):
                    batch_types.append(self.register(cls))
                elif _is_endpoint(cls):
                    self.register_endpoint(cls)
        return tuple(batch_types)

    def _instance(self, processor: object) -> BaseProcessor[Any]:
        if isinstance(processor, BaseProcessor):
            return processor
        if not (inspect.isclass(processor) and issubclass(processor, BaseProcessor)):
            raise NotAProcessor(
                f"{processor!r} is not a processor.",
                hint="register a subclass of BaseProcessor or BaseEndpoint.",
            )
        if inspect.isabstract(processor):
            raise NotAProcessor(f"{_where(processor)} is abstract and cannot be registered.")
        try:
            return processor()
        except (Exception, SystemExit) as exc:
            raise _not_made(processor, exc) from exc


def _not_made(processor: type[Any], exc: BaseException) -> NotAProcessor:
    try:
        inspect.signature(processor).bind()
    except (TypeError, ValueError):
        return NotAProcessor(
            f"{_where(processor)} cannot be made without arguments: {exc}",
            hint="register an instance: registry.register(YourProcessor(…)).",
        )
    return NotAProcessor(
        f"{_where(processor)} cannot be made: {_raised(exc)}", hint="correct its __init__."
    )


def _is_an_endpoint(given: object) -> TypeGuard[type[EndpointHooks] | EndpointHooks]:
    return isinstance(given, EndpointHooks) or (
        inspect.isclass(given) and issubclass(given, EndpointHooks)
    )


def _is_processor(cls: type[Any]) -> TypeGuard[type[BaseProcessor[Any]]]:
    return issubclass(cls, BaseProcessor) and can_process(cls)


def _is_endpoint(cls: type[Any]) -> TypeGuard[type[EndpointHooks]]:
    return issubclass(cls, EndpointHooks) and EndpointHooks not in cls.__bases__  # BaseEndpoint


def _belongs(cls: type[Any], module: ModuleType) -> bool:
    return (
        cls.__module__ == module.__name__
        and not cls.__name__.startswith("_")
        and not inspect.isabstract(cls)
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
    except (Exception, SystemExit) as exc:
        message = f"{_place(name)} cannot be imported: {_raised(exc)}"
        raise DiscoveryError(message, hint=_import_hint(name, exc)) from exc


def _import_hint(name: str, exc: BaseException) -> str:
    absent = exc.name if isinstance(exc, ModuleNotFoundError) and exc.name else ""
    if f"{name}.".startswith(f"{absent}.") and absent:
        return (
            "name the package that holds your processors; it must be importable from here (is "
            "the working directory on sys.path?)."
        )
    return f"install {absent}, or correct the import." if absent else "correct the code there."


def _raised(exc: BaseException) -> str:
    """An exception with the line of the user's code that raised it."""
    ours = ("<frozen", __file__, str(importlib.__file__))
    trace = traceback.extract_tb(exc.__traceback__)
    frames = [frame for frame in trace if not frame.filename.startswith(ours)]
    at = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(exc).__name__}: {exc}{at}"


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
