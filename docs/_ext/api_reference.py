"""Convert an OpenAPI document, as served by the node and lookupd at /openapi.json, to Markdown."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

_COMMON = {"400", "401", "403", "413", "415", "503"}  # described once at the top of the page
_OPEN = {"public": "no authentication", "deferred": "scope depends on the request"}
_NAMES = {"string": "string", "integer": "integer", "boolean": "boolean", "object": "object"}

Document = Mapping[str, Any]


def api_reference(document: Document, prefix: str) -> str:
    """Return the operations of an API, grouped by tag, and its schemas, whose anchors begin with `prefix`."""
    writer = _Writer(document, prefix)
    parts = [part for tag in document["tags"] for part in writer.operations(tag)]
    return "\n\n".join([*parts, "### Schemas", *writer.schemas()])


class _Writer:
    def __init__(self, document: Document, prefix: str) -> None:
        self._document = document
        self._prefix = prefix

    def operations(self, tag: Mapping[str, str]) -> Iterator[str]:
        yield f"### {tag['description']}"
        for path, item in self._document["paths"].items():
            found = {
                method: each
                for method, each in item.items()
                if method not in ("parameters", "head") and each["tags"] == [tag["name"]]
            }
            if found:
                yield f"#### `{path}`"
            for method, operation in found.items():
                yield f"**{method.upper()}** ({self._needs(operation)}): {operation['description']}"
                yield "\n".join(f"- {line}" for line in self._facts(operation))

    def schemas(self) -> Iterator[str]:
        for name, schema in self._document["components"]["schemas"].items():
            yield f"({self._anchor(name)})=\n#### `{name}`"
            if "description" in schema:
                yield schema["description"]
            if "enum" in schema:
                yield f"One of {self._type(schema)}."
            if schema.get("properties"):
                yield self._table(schema)

    def _needs(self, operation: Mapping[str, Any]) -> str:
        scopes = operation.get("x-scopes", {None: operation["x-scope"]})
        return ", ".join(
            _OPEN.get(scope, f"requires `{scope}`") + (f" for `{re.sub(':[a-z]+', '', pattern)}`" if pattern else "")
            for pattern, scope in scopes.items()
        )

    def _facts(self, operation: Mapping[str, Any]) -> Iterator[str]:
        for parameter in operation.get("parameters", ()):
            schema = parameter["schema"]
            default = f", default {_literal(schema['default'])}" if schema.get("default", "") != "" else ""
            yield f"`?{parameter['name']}=` {self._type(schema)}{default}. {schema.get('description', '')}".rstrip()
        for media, content in operation.get("requestBody", {}).get("content", {}).items():
            optional = "" if operation["requestBody"]["required"] else " (optional)"
            yield f"Request body: {self._content(media, content)}{optional}."
        errors = []
        for status, response in operation["responses"].items():
            if "$ref" in response:
                errors.append(status)
                continue
            contents = [self._content(media, content) for media, content in response.get("content", {}).items()]
            headers = "".join(
                f", with `{name}`: {header['description']}" for name, header in response.get("headers", {}).items()
            )
            yield f"Returns {status}{': ' if contents else ''}{' or '.join(contents)}{headers}."
        if special := [status for status in errors if status not in _COMMON]:
            yield f"Errors: {', '.join(special)}."

    def _content(self, media: str, content: Mapping[str, Any]) -> str:
        if "x-item-schema" in content:
            return f"{self._type(content['x-item-schema'])}, one per line"
        kind = self._type(content.get("schema", {}))
        return kind if media == "application/json" else f"`{media}`" + (f": {kind}" if kind != "string" else "")

    def _table(self, schema: Mapping[str, Any]) -> str:
        required = schema.get("required", ())
        rows = []
        for name, each in schema["properties"].items():
            default = "" if name in required or each.get("default") in (None, "", [], {}) else _literal(each["default"])
            rows.append((f"`{name}`", self._type(each), each.get("description", ""), default))
        head = ("key", "type", "description", "default")
        width = 4 if any(row[3] for row in rows) else 3
        lines = [line[:width] for line in (head, ("---",) * len(head), *rows)]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)

    def _type(self, schema: Mapping[str, Any]) -> str:
        """Return a short description of the type of a schema."""
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            return f"[{name}](#{self._anchor(name)})"
        if "anyOf" in schema:
            return " or ".join(dict.fromkeys(self._type(each) for each in schema["anyOf"]))
        if "enum" in schema:
            return ", ".join(_literal(value) for value in schema["enum"])
        if schema.get("type") == "array":
            return f"list of {self._type(schema.get('items', {}))}"
        if isinstance(schema.get("additionalProperties"), Mapping) and schema["additionalProperties"]:
            return f"object of {self._type(schema['additionalProperties'])}"
        kind: str = schema.get("type", "anything")
        return _NAMES.get(kind, kind)

    def _anchor(self, name: str) -> str:
        return f"{self._prefix}-{name.lower()}"


def _literal(value: Any) -> str:
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
