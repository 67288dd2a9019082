"""Announces the jobs of a node to lookup servers.

`journal` finds and numbers the differences (pure), `link` keeps the connection to one lookup server, `announcer` ties
them to the manager.
"""
