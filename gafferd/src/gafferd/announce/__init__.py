"""Announces the jobs of a node to lookup servers.

`journal` computes and numbers the changes (pure), `link` maintains the connection to one lookup server, and `announcer`
connects them to the manager.
"""
