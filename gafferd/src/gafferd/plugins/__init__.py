"""Plugins: found in the plugin directory and among the installed distributions, loaded, started, reported."""
