"""API keys of a node."""
