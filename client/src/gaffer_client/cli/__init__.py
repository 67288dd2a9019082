"""The `gaffer` and `gafferctl` commands."""
