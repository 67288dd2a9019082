"""Types of the path parameters of the node's API."""

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta

from gaffer.jobs.names import JOB_NAME_PATTERN, NAME_PATTERN, PID_PATTERN

PARAMETERS: Mapping[str, Any] = {
    "sid": Annotated[str, Meta(pattern=NAME_PATTERN, description="The name of a session.")],
    "job": Annotated[str, Meta(pattern=NAME_PATTERN, description="The bare name of a job.")],
    "name": Annotated[
        str, Meta(pattern=JOB_NAME_PATTERN, description="The name of a job: `web`, `shop.web` or `shop:web`.")
    ],
    "pid": Annotated[str, Meta(pattern=PID_PATTERN, description="The pid that Gaffer assigned to a process.")],
    "stream": Annotated[str, Meta(pattern=r"^[^/]+$", description="An output or custom stream of the process.")],
    "label": Annotated[str, Meta(pattern=r"^[^/]+$", description="A stream: `stdin`, an output or a custom stream.")],
    "count": Annotated[str, Meta(pattern="^[1-9][0-9]{0,4}$", description="The number of processes.")],
    "action": Annotated[str, Meta(pattern=r"^[^/]+$", description="The name of an action of the job.")],
    "signal": Annotated[str, Meta(pattern="^[A-Za-z0-9]+$", description="The name or number of a signal.")],
    "first": Annotated[str, Meta(pattern="^[^/]+$", description="The first part of an event's name.")],
    "second": Annotated[str, Meta(pattern="^[^/]+$", description="The second part of an event's name.")],
    "third": Annotated[str, Meta(pattern="^[^/]+$", description="The third part of an event's name.")],
    "resource": Annotated[str, Meta(pattern="^[^/]+$", description="Any other resource.")],
}
