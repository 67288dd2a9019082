"""Why a check of a process has no result, or a bad one."""


class OutOfResources(Exception):
    """This process lacks the descriptors or memory for a check, which says nothing about the checked one."""


class CheckFailed(Exception):
    """The result of a check is bad: `error` says why, `refused` whether it is that nothing listens."""

    def __init__(self, error: str, *, refused: bool = False) -> None:
        super().__init__(error)
        self.error = error
        self.refused = refused
