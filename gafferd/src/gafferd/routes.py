"""The routes that gafferd adds to those of every node (gaffer.http_handler)."""

from gaffer.ui.routes import make_ui_routes
from gafferd import plugin_routes, reload_routes, upgrade_routes
from gafferd.access import key_routes
from gafferd.history import routes as history_routes
from gafferd.sites import site_routes
from gafferd.usage import routes as usage_routes

__all__ = ["ROUTES", "WITHOUT_UI"]

WITHOUT_UI = [
    *key_routes.ROUTES,
    *reload_routes.ROUTES,
    *upgrade_routes.ROUTES,
    *history_routes.ROUTES,
    *usage_routes.ROUTES,
    *plugin_routes.ROUTES,
    *site_routes.ROUTES,
]

ROUTES = [*WITHOUT_UI, *make_ui_routes()]
