"""Naming, registering and discovering processors."""

import abc
import importlib
import itertools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from reliable_imports_async import BaseProcessor, Registry
from reliable_imports_async.errors import (
    DiscoveryError,
    DuplicateBatchType,
    NotAProcessor,
    UnknownBatchType,
)

from .reach import batch_type_of

PROCESSOR = """
from reliable_imports_async import BaseProcessor

class {name}(BaseProcessor):
    async def process_item(self, item, ctx): ...
"""

numbers = itertools.count()


class CustomerDataProcessor(BaseProcessor):
    async def process_item(self, item, ctx): ...


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes modules, by their paths without suffix, into a package of its own; gives its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(**modules: str) -> str:
        name = f"processors_{next(numbers)}"
        for path, source in {"__init__": "", **modules}.items():
            file = tmp_path / name / f"{path}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            for folder in file.relative_to(tmp_path).parents[:-1]:
                (tmp_path / folder / "__init__.py").touch()
            file.write_text(source)
        importlib.invalidate_caches()
        return name

    return write


@pytest.mark.parametrize(
    ("name", "batch_type"),
    [
        ("CustomerDataProcessor", "customer_data"),
        ("ProductCatalogProcessor", "product_catalog"),
        ("XMLOrderProcessor", "xml_order"),
        ("OrderXMLProcessor", "order_xml"),
        ("S3FileProcessor", "s3_file"),
        ("Orders", "orders"),
        ("Processor", "processor"),
    ],
)
def test_the_class_name_is_the_batch_type(name: str, batch_type: str) -> None:
    assert batch_type_of(name) == batch_type


def test_an_explicit_batch_type_wins() -> None:
    class ClientProcessor(CustomerDataProcessor):
        batch_type = "customers"

    registry = Registry()
    assert registry.register(ClientProcessor) == "customers"
    assert registry.batch_types == ("customers",)


def test_an_unknown_type_is_refused_with_the_known_ones() -> None:
    registry = Registry()
    registry.register(CustomerDataProcessor)
    with pytest.raises(UnknownBatchType, match=r"'orders' \(registered: customer_data\)") as caught:
        registry.get("orders")
    assert "discover" in caught.value.hint
    assert isinstance(caught.value, LookupError)


def test_an_instance_replaces_the_class() -> None:
    registry = Registry()
    registry.register(CustomerDataProcessor)
    instance = CustomerDataProcessor()
    assert registry.register(instance) == "customer_data"
    assert registry.get("customer_data") is instance
    registry.register(CustomerDataProcessor)
    assert registry.get("customer_data") is instance


def test_discovery_goes_all_the_way_down_and_may_be_repeated(package: Callable[..., str]) -> None:
    name = package(
        **{
            "orders": PROCESSOR.format(name="OrderProcessor"),
            "far/below/stock": PROCESSOR.format(name="StockProcessor"),
            "__main__": "raise SystemExit('not to be imported')",
        }
    )
    registry = Registry()
    assert sorted(registry.discover(name)) == ["order", "stock"]
    first = registry.get("order")
    assert sorted(registry.discover(importlib.import_module(name))) == ["order", "stock"]
    assert registry.get("order") is first


def test_a_single_module_is_discovered(package: Callable[..., str]) -> None:
    name = package(orders=PROCESSOR.format(name="OrderProcessor"))
    assert Registry().discover(f"{name}.orders") == ("order",)


def test_bases_imports_and_private_classes_are_passed_over(package: Callable[..., str]) -> None:
    name = package(
        base="import abc\n"
        + PROCESSOR.format(name="_SharedProcessor")
        + "class EmptyProcessor(BaseProcessor): ...\n"
        + "class DraftProcessor(_SharedProcessor, abc.ABC):\n"
        + "    @abc.abstractmethod\n    def rules(self): ...\n",
        orders="from .base import EmptyProcessor, _SharedProcessor\n"
        "class OrderProcessor(_SharedProcessor): ...\n",
    )
    assert Registry().discover(name) == ("order",)


def test_a_duplicate_names_both_files(package: Callable[..., str]) -> None:
    source = PROCESSOR.format(name="OrderProcessor")
    name = package(one=source, two=source)
    with pytest.raises(DuplicateBatchType, match="'order' is used twice") as caught:
        Registry().discover(name)
    assert f"{name}/one.py" in caught.value.message
    assert f"{name}/two.py" in caught.value.message


@pytest.mark.parametrize(
    "source", ["import nothing_like_this", "1/0", "def broken(:"], ids=["import", "raise", "syntax"]
)
@pytest.mark.parametrize("path", ["bad", "bad/__init__"], ids=["module", "package"])
def test_an_import_error_names_its_file(package: Callable[..., str], source, path) -> None:
    name = package(**{path: source})
    with pytest.raises(DiscoveryError, match="cannot be imported") as caught:
        Registry().discover(name)
    assert f"{name}/{path}.py" in caught.value.message
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("source", "line", "hint"),
    [
        ("x = 1\n1 / 0", "line 2", "correct the code"),
        ("import sys\nsys.exit(0)", "line 2", "correct the code"),
        ("\n\nimport nothing_like_this", "line 3", "install nothing_like_this"),
        ("def broken(:", "line 1", "correct the code"),
    ],
    ids=["raise", "exit", "import", "syntax"],
)
def test_an_import_error_names_its_line_and_what_to_do(
    package: Callable[..., str], source: str, line: str, hint: str
) -> None:
    name = package(bad=source)
    with pytest.raises(DiscoveryError) as caught:
        Registry().discover(name)
    assert line in caught.value.message
    assert hint in caught.value.hint
    with pytest.raises(DiscoveryError) as absent:
        Registry().discover(f"{name}.absent")
    assert "name the package" in absent.value.hint


@pytest.mark.parametrize("statement", ["raise TypeError('odd')", "1 / 0", "import sys; sys.exit()"])
def test_a_processor_whose_init_raises_is_named_with_the_line(
    package: Callable[..., str], statement: str
) -> None:
    source = PROCESSOR.format(name="OrderProcessor")
    name = package(one=f"{source}\n    def __init__(self):\n        {statement}\n")
    with pytest.raises(
        NotAProcessor, match=r"OrderProcessor .*cannot be made: .*line \d"
    ) as caught:
        Registry().discover(name)
    assert "__init__" in caught.value.hint


def test_a_package_that_does_not_exist_is_refused() -> None:
    with pytest.raises(DiscoveryError, match=r"Module no\.such\.package .*ModuleNotFoundError"):
        Registry().discover("no.such.package")


class Abstract(BaseProcessor, abc.ABC):
    @abc.abstractmethod
    def rules(self): ...

    async def process_item(self, item, ctx): ...


class Demanding(BaseProcessor):
    def __init__(self, rules):
        self.rules = rules

    async def process_item(self, item, ctx): ...


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (BaseProcessor, "does not define process_item"),
        (Abstract, "is abstract"),
        (Demanding, "cannot be made without arguments"),
        (dict, "is not a processor"),
        ("orders", "is not a processor"),
        (ModuleType("orders"), "is not a processor"),
    ],
)
def test_what_is_no_processor_is_refused(what, message: str) -> None:
    with pytest.raises(NotAProcessor, match=message) as caught:
        Registry().register(what)
    assert isinstance(caught.value, TypeError)
    assert Registry().register(Demanding("any")) == "demanding"


def plain(self, *_args): ...


async def coroutine(self, *_args): ...


async def generator(self, *_args):
    yield


@pytest.mark.parametrize(
    ("hook", "function", "message"),
    [
        ("process_item", plain, "process_item is not async"),
        ("process_item", generator, "process_item is not async"),
        ("prepare_item", plain, "prepare_item is not async"),
        ("on_batch_start", plain, "on_batch_start is not async"),
        ("on_connection", plain, "on_connection is not async"),
        ("on_batch_complete", plain, "on_batch_complete is not async"),
        ("after_batch_complete", plain, "after_batch_complete is not async"),
        ("resources", coroutine, "resources does not return an async context manager"),
        ("resources", generator, "resources does not return an async context manager"),
    ],
)
def test_a_hook_of_the_wrong_shape_is_refused_by_name(hook: str, function, message: str) -> None:
    cls = type("OrderProcessor", (CustomerDataProcessor,), {hook: function})
    with pytest.raises(NotAProcessor, match=message):
        Registry().register(cls)
