"""What answers of other versions may look like."""

import subprocess
import sys
from enum import StrEnum
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pytest
from msgspec import Meta

from gaffer.schemas.common import Later
from gaffer.schemas.lookup import SourcesResponse
from gaffer_client.shapes import tolerant


class Colour(StrEnum):
    RED = "red"


class Settings(msgspec.Struct):
    size: int


class Leaf(TypedDict):
    colour: Colour
    limited: Annotated[int, Meta(ge=0)]
    kind: Literal["leaf"]
    added: Later[Annotated[str, Meta(max_length=1)]]
    settings: Settings | None


class Tree(Leaf):
    leaves: list[Leaf]
    named: dict[str, Leaf]
    trees: "list[Tree]"


LEAF = {"colour": "red", "limited": 1, "kind": "leaf", "settings": None}


def tree(**changed: Any) -> dict[str, Any]:
    return {**LEAF, "leaves": [LEAF], "named": {"a": LEAF}, "trees": [{"any": 1}], **changed}


@pytest.mark.parametrize(
    "document",
    [
        tree(),
        tree(more=1),
        tree(colour="mauve", limited=-1, kind="needle", settings={"weight": 1}),
        tree(leaves=[LEAF | {"colour": "mauve", "added": "long"}]),
    ],
)
def test_what_other_versions_may_answer(document: Any) -> None:
    msgspec.convert(document, tolerant(Tree))


@pytest.mark.parametrize(
    "document",
    [
        [],
        {key: value for key, value in tree().items() if key != "colour"},
        tree(colour=1),
        tree(kind=True),
        tree(limited="1"),
        tree(added=1),
        tree(settings=[]),
        tree(leaves=[LEAF | {"kind": None}]),
        tree(named={"a": {}}),
        tree(trees=[1]),
    ],
)
def test_what_no_version_answers(document: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(document, tolerant(Tree))


def test_an_answer_of_gaffer_0_5() -> None:
    node = {"name": "one", "origin": "http://one:5000", "version": "0.5"}
    answer: dict[str, Any] = {"sources": [{"name": "one", "pids": [1], "node_info": node}]}
    msgspec.convert(answer, tolerant(SourcesResponse))
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(answer, SourcesResponse)


def test_the_settings_of_jobs_are_imported_with_the_first_job() -> None:
    code = "import gaffer_client.node, gaffer_client.lookup, sys; print('gaffer.jobs.config' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "False"


FIRST_USES = """
import sys, threading
from typing import TypedDict
from gaffer_client.shapes import validate

sys.setswitchinterval(1e-6)
for number in range(60):
    inner = TypedDict("inner", {f"a{index}": int for index in range(40)})
    shape = TypedDict("shape", {f"b{index}": list[inner] for index in range(10)})
    start = threading.Barrier(8)

    def work():
        start.wait()
        validate({f"b{index}": [] for index in range(10)}, shape)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print("done")
"""


def test_threads_may_use_a_shape_for_the_first_time_at_once() -> None:
    ran = subprocess.run([sys.executable, "-c", FIRST_USES], capture_output=True, text=True, timeout=50, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "done\n", "")
