"""The HTTP API of a node, with one module for each family of routes."""
