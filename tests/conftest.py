"""Loads what applies to every test: the checks for leaks, and the marks for what a test needs."""

pytest_plugins = ("pytester", "support.leaks", "support.needs")
