"""The handlers of the node's HTTP API, one family a module."""
