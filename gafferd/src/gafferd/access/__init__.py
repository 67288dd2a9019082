"""API keys and logins of a node."""
