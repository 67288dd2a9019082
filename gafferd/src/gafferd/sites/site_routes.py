"""HTTP routes of plugin sites, below `/_plugin/`."""

import asyncio
from collections.abc import Mapping
from email.utils import formatdate
from typing import Annotated, Any, BinaryIO, ClassVar, cast

from msgspec import Meta
from tornado.iostream import StreamClosedError

from gaffer.api.node import NodeHandler
from gaffer.http.access import Scope
from gaffer.http.base import Moved, NotFound
from gaffer.http.error_body import ErrorBody
from gaffer.http.operations import operation
from gaffer.http.routes import Route
from gafferd.sites.byte_ranges import RangeNotSatisfiable, find_range, parse_date, range_applies
from gafferd.sites.files import SiteFile, Sites

_PIECE = 64 * 1024  # bytes of a file in memory per client


class SiteHandler(NodeHandler):
    """Base class of handlers of plugin sites."""

    parameters: ClassVar[Mapping[str, Any]] = {
        "plugin": Annotated[str, Meta(pattern="^[^/]+$", description="The plugin: the name of its directory.")],
        "file": Annotated[str, Meta(description="The path of a file; slashes in it are not encoded.")],
    }

    @property
    def sites(self) -> Sites:
        """The sites of the node's plugins."""
        return cast(Sites, self.settings["sites"])

    def moved(self, path: str) -> Moved:
        """Return the redirect for a directory path without a final slash."""
        return Moved(path.rpartition("/")[2], self.request.query)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs["error"]
        if isinstance(error, RangeNotSatisfiable):
            self.set_header("Content-Range", f"bytes */{error.size}")
        super().write_error(status_code, **kwargs)


class PluginSite(SiteHandler):
    """The path of a site without the final slash."""

    @operation(ErrorBody, status=301, headers={"Location": "the path with a final slash"})
    def get(self) -> None:
        """Redirect to `/_plugin/{plugin}/`, so that relative links of its pages work."""
        found = self.sites.open(self.params["plugin"], "")
        if found is None:
            raise NotFound(f"the plugin {self.params['plugin']!r} has no index.html")
        found.file.close()
        raise self.moved(self.params["plugin"])


class PluginFile(SiteHandler):
    """A file of a plugin's site."""

    @operation(
        media="*/*",
        errors=(304, Moved, RangeNotSatisfiable),
        headers={"ETag": "version of the file", "Last-Modified": "time of the last change"},
    )
    async def get(self) -> None:
        """Return the file, or `index.html` of a directory. A request with `Range` gets a 206."""
        path = self.params["file"]
        found = self.sites.open(self.params["plugin"], path)
        if found is None:
            raise self.moved(path)
        with found.file:
            await self._respond(found)

    async def _respond(self, found: SiteFile) -> None:
        self.set_header("Content-Type", found.media)
        self.set_header("Cache-Control", "private, no-cache")  # cache, but revalidate
        self.set_header("Accept-Ranges", "bytes")
        self.set_header("ETag", found.etag)
        self.set_header("Last-Modified", formatdate(found.modified, usegmt=True))
        if self._is_known(found):
            self.set_status(304)
            return
        part = self._wanted(found)
        self.set_header("Content-Length", str(len(part)))
        if self.request.method != "HEAD":
            await self._send(found.file, part)

    def _is_known(self, found: SiteFile) -> bool:
        """Return whether the client has this version of the file."""
        if "If-None-Match" in self.request.headers:
            return self.check_etag_header()
        since = parse_date(self.request.headers.get("If-Modified-Since"))
        return since is not None and found.modified <= since

    def _wanted(self, found: SiteFile) -> range:
        """Return the positions to send; set the status if that is only a part."""
        headers = self.request.headers
        part = None
        if self.request.method == "GET" and range_applies(headers.get("If-Range"), found.etag, found.modified):
            part = find_range(headers.get("Range"), found.size)
        if part is None:
            return range(found.size)
        self.set_status(206)
        self.set_header("Content-Range", f"bytes {part.start}-{part.stop - 1}/{found.size}")
        return part

    async def _send(self, file: BinaryIO, part: range) -> None:
        """Send a part of the file in pieces; close the connection if the client does not read in time."""
        file.seek(part.start)
        left = len(part)
        try:
            while left:
                piece = file.read(min(left, _PIECE))
                if not piece:
                    self._hang_up()  # the file was truncated: less was sent than announced
                    return
                left -= len(piece)
                self.write(piece)
                async with asyncio.timeout(self.application.limits.body_timeout):
                    await self.flush()
                await asyncio.sleep(0)  # let other clients run
        except StreamClosedError:
            pass
        except TimeoutError:
            self._hang_up()

    def _hang_up(self) -> None:
        cast(Any, self.request.connection).stream.close()


ROUTES = [
    Route("/_plugin/{plugin}", PluginSite, {"GET": Scope.READ}),
    Route("/_plugin/{plugin}/{file:rest}", PluginFile, {"GET": Scope.READ}),
]
