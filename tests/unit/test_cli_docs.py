"""The guide's pages about the command line say what the program does."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
import pytest

from qmeter_native.cli.main import SECTIONS, cli

DOCS = Path(__file__).parents[2] / "docs"
NAMES = [entry.name for entries in SECTIONS.values() for entry in entries]


def command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


def test_every_command_has_a_chapter_in_the_order_of_the_day() -> None:
    chapters = re.findall(r"^## (\w+)$", (DOCS / "cli.md").read_text(), re.MULTILINE)
    assert [chapter for chapter in chapters if chapter in NAMES] == NAMES


@pytest.mark.parametrize(
    "page", ["cli.md", "report-json.md", "index.md", "tracing-servers.md", "vllm.md", "quality.md"]
)
def test_examples_use_options_that_exist(page: str) -> None:
    for line in re.findall(r"^\$? ?qmeter-native (.+)$", (DOCS / page).read_text(), re.MULTILINE):
        name, *words = line.partition(" -- ")[0].split("|")[0].split()  # what follows -- is another program's
        if name not in NAMES:
            continue
        known = {option for parameter in command(name).params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= known, line


def test_every_field_of_the_document_is_described() -> None:
    schema: dict[str, Any] = json.loads((files("qmeter_native.reporters") / "report.schema.json").read_text())
    page = (DOCS / "report-json.md").read_text()
    assert fields_of(schema) - set(re.findall(r"\w+", page)) == set()


def fields_of(schema: Any) -> set[str]:
    """Names of all properties, at any depth."""
    if isinstance(schema, list):
        return set().union(*map(fields_of, schema)) if schema else set()
    if not isinstance(schema, dict):
        return set()
    properties = schema.get("properties", {})
    is_schema = all(isinstance(value, dict) for value in properties.values())  # else a field of that name
    names = set(properties) if is_schema else set()
    return names.union(*(fields_of(value) for value in schema.values()))


@pytest.mark.parametrize("entry", [entry for entries in SECTIONS.values() for entry in entries], ids=NAMES)
def test_the_list_of_commands_and_each_command_say_the_same_thing(entry: Any) -> None:
    assert entry.summary.endswith(".")
    assert command(entry.name).help
