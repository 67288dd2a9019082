"""The routes of the dashboard. Its files need no key; what the pages show and do goes through the rest of the API."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar
from urllib.parse import quote

from msgspec import Meta

from gaffer.errors import GafferError
from gaffer.http.base import Handler, Moved, NotFound
from gaffer.http.error_body import ErrorBody
from gaffer.http.operations import operation
from gaffer.http.routes import PUBLIC, Route
from gaffer.ui.assets import INDEX, Asset, Assets, accepts_gzip

TERMINAL = "terminal.html"
"""The page with the terminal, whose library makes style elements: the only page that allows them."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src {}; img-src 'self' data:; connect-src {}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class PageMoved(Moved):
    """The path names a page of the dashboard; Location gives its address, which has the name behind a `#`."""

    errno = 302

    def __init__(self, page: str, query: str) -> None:
        # Relative, so that it also works behind a proxy.
        self.location = f"{'../' * page.count('/') or './'}#/{quote(page)}" + (f"?{query}" if query else "")
        GafferError.__init__(self, "pages of the dashboard are behind a #", hint=f"go to {self.location}")


class Dashboard(Handler):
    """The path of the dashboard without the final slash."""

    @operation(ErrorBody, status=301, headers={"Location": "the path with a final slash"})
    def get(self) -> None:
        """Redirect to `/ui/`."""
        raise Moved("ui", self.request.query)


class DashboardFile(Handler):
    """A file of the dashboard."""

    parameters: ClassVar[Mapping[str, Any]] = {
        "file": Annotated[str, Meta(description="The path of a file; slashes in it are not encoded.")],
    }
    assets: ClassVar[Assets] = Assets(Path(__file__).with_name("static"))

    @operation(media="*/*", errors=(PageMoved, 304), headers={"ETag": "version of the file"})
    async def get(self) -> None:
        """Return the file, `index.html` for an empty path. It is compressed with gzip for clients that accept it.

        For other paths, browsers that open them as a page are redirected to the page that the path names, such as
        `/ui/#/jobs/shop.web`, and all other clients get a 404.
        """
        name = self.params["file"] or INDEX
        assets = await self._assets()
        if name not in assets and "text/html" in self.request.headers.get("Accept", ""):
            raise PageMoved(name, self.request.query)
        if name not in assets:
            raise NotFound(f"the dashboard has no file {name!r}")
        self._respond(name, assets[name])

    @property
    def nodes(self) -> str:
        """The sources of the Content-Security-Policy that the pages may connect to besides their own server."""
        return ""

    async def _assets(self) -> Mapping[str, Asset]:
        if self.assets.known is not None:
            return self.assets.known
        try:
            return await asyncio.to_thread(self.assets.read)
        except OSError as error:
            raise GafferError(
                f"can't read the files of the dashboard: {error}", reason="no_dashboard", hint="install Gaffer again"
            ) from error

    def _respond(self, name: str, asset: Asset) -> None:
        style = "'self' 'unsafe-inline'" if name == TERMINAL else "'self'"
        self.set_header("Content-Security-Policy", _POLICY.format(style, f"'self' {self.nodes}".strip()))
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Content-Type", asset.media)
        self.set_header("Cache-Control", "no-cache")  # cache, but revalidate
        self.add_header("Vary", "Accept, Accept-Encoding")
        body, version = asset.plain, asset.version
        if asset.compressed is not None and accepts_gzip(self.request.headers.get("Accept-Encoding")):
            body, version = asset.compressed, f"{version}-gzip"
            self.set_header("Content-Encoding", "gzip")
        self.set_header("ETag", f'"{version}"')
        if self.check_etag_header():
            self.set_status(304)
        else:
            self.finish(body)


def make_ui_routes(file: type[DashboardFile] = DashboardFile) -> list[Route]:
    """Return the routes of the dashboard, whose files `file` serves."""
    return [Route("/ui", Dashboard, {"GET": PUBLIC}), Route("/ui/{file:rest}", file, {"GET": PUBLIC})]
