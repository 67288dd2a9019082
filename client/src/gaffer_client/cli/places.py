"""The application in a directory: its name, and where its Procfile is."""

import os

from gaffer.errors import BadRequest
from gaffer.jobs.names import check_name
from gaffer_client.cli.errors import UsageError
from gaffer_client.cli.parse import Arguments


def app_name(args: Arguments, name: str | None) -> str:
    """Return the session of an application: `name`, or the name of its directory if `name` is None or `.`."""
    if name not in (None, "."):
        return check_name(str(name), "session")
    root, _ = find_places(args)
    folder = os.path.basename(root)
    try:
        return check_name(folder, "session")
    except BadRequest as error:
        raise UsageError(
            f"the directory name is not a valid application name: {error.message}", hint="give a name"
        ) from None


def find_places(args: Arguments) -> tuple[str, str]:
    """Return the root directory of the application and the path of its Procfile."""
    given, directory = args.text("--procfile"), args.text("--directory")
    path = os.path.abspath(given or os.path.join(directory or ".", "Procfile"))
    if directory or (os.path.exists(path) and not os.path.isfile(path)):  # a pipe has no directory: -f <(command)
        return os.path.abspath(directory or "."), path
    return os.path.dirname(path), path
