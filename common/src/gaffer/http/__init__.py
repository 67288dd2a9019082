"""The HTTP kernel of both daemons: connections, limits, access, routes, OpenAPI, feeds, websockets, SockJS.

Nothing here depends on jobs or the manager.
"""
