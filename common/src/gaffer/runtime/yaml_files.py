"""YAML files whose scalars are texts, as written, with the line of each part.

A scalar is not guessed to be a number, a date or a boolean: `027`, `3.10`, `22:22` and `on` are these texts, and the
rules of the settings convert them, as they do in INI files. Only null, in plain style, is None.
"""

from typing import Any

import yaml

from gaffer.errors import ConfigError, Problem, quoted

MAX_CHARACTERS = 4 * 1024**2
_MAX_NODES = 200_000  # aliases count each time
_MAX_DEPTH = 16

_TAG = "tag:yaml.org,2002:"
_NULL = f"{_TAG}null"
_MERGE = f"{_TAG}merge"
_SCALARS = frozenset(f"{_TAG}{name}" for name in ("null", "bool", "int", "float", "str", "timestamp", "merge", "value"))


def compose(text: str, file: str) -> yaml.Node | None:
    """Return the root node of the document in `text`, or None if it is empty; raise ConfigError if it is not YAML."""
    if len(text) > MAX_CHARACTERS:
        raise ConfigError([Problem(file, f"the file is larger than {MAX_CHARACTERS // 1024**2} MiB")])
    try:
        return yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{file}:{mark.line + 1}" if mark else file
        message = str(error.problem or error.context)
        if message.startswith("but "):
            message = f"{error.context}, {message}"
        problem = Problem(place, f"invalid YAML: {message}", _hint(error))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = Problem(f"{file}:{line}", f"invalid YAML: {error.reason}", "save the file as UTF-8 text")
    except RecursionError:
        problem = Problem(file, "nested too deeply")
    raise ConfigError([problem])


def _hint(error: yaml.MarkedYAMLError) -> str | None:
    problem, context = str(error.problem), str(error.context)
    if "alias" in context + problem or "cannot start any token" in problem or "tag" in context:
        if "\\t" in problem:
            return "indent with blanks, not with tabs"
        return "quote a text that begins with one of * & ! % @ `"
    if "mapping values are not allowed" in problem or "but got ':'" in problem:
        return "quote a text with a colon and a blank in it, and indent the keys of a mapping equally"
    if "expected a single document" in context:
        return "remove the line with ---"
    return None


class NodeReader:
    """Converts nodes of the file `file` to values; `problems` collects the mistakes in them."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self._left = _MAX_NODES

    def place(self, node: yaml.Node) -> str:
        """Return the file and line of a node."""
        return f"{self.file}:{line_of(node)}"

    def items(self, node: yaml.MappingNode, depth: int = 0) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Return the key node and value node of each key; keys of a merge (`<<`) come first, others win over them."""
        merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._wrong(key, "expected a text as a key")
            elif key.tag == _MERGE:
                merged |= self._merge(value, depth + 1)
            elif key.value in own:
                first = line_of(own[key.value][0])
                self._wrong(key, f"{key.value} is already set on line {first}", "remove one of the two")
            else:
                own[key.value] = (key, value)
        return {**merged, **own}

    def value(self, node: yaml.Node, path: str, lines: dict[str, int], depth: int = 0) -> Any:
        """Return a node as texts, lists and dicts, and add the line of each part below `path` to `lines`."""
        self._left -= 1
        if self._left < 0 or depth > _MAX_DEPTH:
            if self._left >= -1:
                self._wrong(node, "the file has too many parts" if self._left < 0 else "nested too deeply")
            self._left = -2  # read no further
            return None
        lines.setdefault(path, line_of(node))
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
            return None if node.tag == _NULL else node.value
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            return [self.value(item, f"{path}[{at}]", lines, depth + 1) for at, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
            result = {}
            for name, (key, item) in self.items(node, depth).items():
                lines[f"{path}.{name}"] = line_of(key)
                result[name] = self.value(item, f"{path}.{name}", lines, depth + 1)
            return result
        self._wrong(node, f"the tag {quoted(node.tag.removeprefix(_TAG))} is not supported", "remove it")
        return None

    def _merge(self, node: yaml.Node, depth: int) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for source in sources:
            self._left -= 1
            if not isinstance(source, yaml.MappingNode):
                self._wrong(source, "expected a mapping to merge", "write <<: *NAME of a mapping that has &NAME")
            elif self._left < 0 or depth > _MAX_DEPTH:
                self._wrong(source, "nested too deeply")
            else:
                merged = {**self.items(source, depth), **merged}
        return merged

    def _wrong(self, node: yaml.Node, message: str, hint: str | None = None) -> None:
        self.problems.append(Problem(self.place(node), message, hint))


def line_of(node: yaml.Node) -> int:
    """Return the line of a node, from 1."""
    return int(node.start_mark.line) + 1
