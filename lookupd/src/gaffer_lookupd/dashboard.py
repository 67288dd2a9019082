"""The dashboard of the cluster: the files that nodes serve, too, with permission to connect to the nodes."""

from gaffer.ui.routes import DashboardFile


class ClusterDashboardFile(DashboardFile):
    """A file of the dashboard."""

    @property
    def nodes(self) -> str:
        """Any server, since nodes come and go; browsers let no page from https connect to http."""
        return "https: wss:" if self.request.protocol == "https" else "http: https: ws: wss:"
