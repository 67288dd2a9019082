"""The HTTP API of a node, one family of routes a module."""
