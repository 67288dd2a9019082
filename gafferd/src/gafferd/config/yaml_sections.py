"""Configuration files in YAML: a mapping of the sections of INI files, read into the same sections.

Where INI has one section each, as in `[endpoint:NAME]` and `[job:SESSION:NAME]`, YAML has one mapping by name, as in
`endpoints` and `jobs`. A top-level key that begins with `x-` is ignored: a place for anchors.
"""

from typing import Final

import yaml

from gaffer.errors import Problem, did_you_mean, quoted
from gaffer.runtime.ini import Section, Value
from gaffer.runtime.yaml_files import NodeReader, compose, line_of

NAMED_SECTIONS: Final = {"endpoints": "endpoint", "plugins": "plugin", "jobs": "job"}
"""The keys that hold mappings by name, and the kind of section that each entry is in INI."""

_IGNORED = "x-"


def parse_yaml(text: str, file: str, plain: tuple[str, ...]) -> tuple[dict[str, Section], list[Problem]]:
    """Return the sections of `text` in order, and all problems in it, as `parse_ini` does.

    `file` is its name in messages, `plain` are the keys that stand for a section without a name. Raises ConfigError if
    the text is not YAML.
    """
    parser = _Parser(file, plain)
    root = compose(text, file)
    if root is not None:
        parser.read(root)
    return parser.sections, parser.reader.problems


class _Parser:
    def __init__(self, file: str, plain: tuple[str, ...]) -> None:
        self.reader = NodeReader(file)
        self.sections: dict[str, Section] = {}
        self._file = file
        self._plain = plain

    def read(self, root: yaml.Node) -> None:
        known = (*self._plain, *NAMED_SECTIONS)
        for key, (key_node, node) in self._items(root, "the file").items():
            if key in NAMED_SECTIONS:
                for name, (name_node, settings) in self._items(node, key).items():
                    self._section(f"{NAMED_SECTIONS[key]}:{name}", f"{key}.{name}", name_node, settings)
            elif key in self._plain:
                self._section(key, key, key_node, node)
            elif not key.startswith(_IGNORED):
                hint = did_you_mean(key, known) or f"known keys: {', '.join(known)}, and x-NAME for anchors"
                self._wrong(key_node, f"unknown key {quoted(key)}", hint)

    def _section(self, name: str, title: str, header: yaml.Node, node: yaml.Node) -> None:
        section = Section(name, self._file, line_of(header), title=f"{title}:")
        for key, (key_node, value) in self._items(node, title).items():
            parts: dict[str, int] = {}
            data = self.reader.value(value, "", parts)
            del parts[""]
            section.values[key] = Value(data, self._file, line_of(key_node), parts)
        self.sections[name] = section

    def _items(self, node: yaml.Node, title: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Return the items of a mapping; none, for null, and a problem for anything else."""
        if isinstance(node, yaml.MappingNode):
            return self.reader.items(node)
        if self.reader.value(node, "", {}) is not None:
            self._wrong(node, f"{title}: expected a mapping", "write KEY: VALUE")
        return {}

    def _wrong(self, node: yaml.Node, message: str, hint: str | None = None) -> None:
        self.reader.problems.append(Problem(self.reader.place(node), message, hint))
