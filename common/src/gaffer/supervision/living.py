"""The life cycle as the public interface of a manager offers it."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from gaffer.errors import ManagerStopping
    from gaffer.supervision.lifecycle import Lifecycle


class Living:
    """The methods of a manager that start, stop, restart, drain and hand over."""

    loop: "asyncio.AbstractEventLoop"
    _life: "Lifecycle"

    @property
    def started(self) -> bool:
        """True from the start to the end of the stop."""
        return self._life.started

    @property
    def stopping(self) -> bool:
        """True once the stop has begun."""
        return self._life.stopping

    @property
    def handing_over(self) -> bool:
        """True once `hand_over` has begun; `stopping` is true then, too."""
        return self._life.handing_over

    @property
    def refusal(self) -> "ManagerStopping":
        """The error for orders once the stop has begun: NodeUpgrading in a handover."""
        return self._life.refusal

    @property
    def active(self) -> bool:
        """True from a successful start to the beginning of the stop."""
        return self._life.active

    @property
    def draining(self) -> bool:
        """Whether the node is out of service, see `drain`."""
        return self._life.draining

    @property
    def drained(self) -> bool:
        """Whether draining has finished: no process is left and none will be started."""
        return self._life.drained

    def start(self, apps: Iterable[Any] = (), applications: Iterable[Any] = ()) -> None:
        """Start supervising, then start the applications in order, on the loop. A second start is a no-op.

        A manager that was stopped starts again without its former jobs. Raises TypeError for an object that is not an
        application, and any exception of an application's `start`; nothing stays started then. An application's `start`
        may be a coroutine function, which is awaited, unless this is called on the running loop: RuntimeError.
        """
        self._life.start(apps, applications)

    def run(self) -> None:
        """Run the loop until the last manager on it has stopped; RuntimeError if this one was not started."""
        self._life.run()

    def stop(self, callback: Callable[[Any], Any] | None = None, now: bool = False) -> None:
        """Stop all jobs, then the applications, then call `callback(manager)`.

        Processes get their graceful timeout to exit; `now` kills them at once, even if a stop is already in progress.
        Otherwise, a stop before the start and a second stop are no-ops.
        """
        self._life.stop(callback, now)

    def hand_over(self, callback: Callable[[Any], Any] | None = None) -> None:
        """Stop the applications, then call `callback(manager)`; leave all processes running, for another manager.

        Nothing is ended, released or reported to the recorder, except auxiliary commands, which are killed. Our ends of
        pipes are closed: whoever continues with the processes has duplicates of them. Applications `quiesce`, `leave`
        and `stop` as at a stop, with `handing_over` true; those that take longer than `HAND_OVER_TIMEOUT` for a step
        are cancelled, and log files that can't be written by then stay behind. Jobs refuse orders with NodeUpgrading
        (503). No-op before the start and once a stop has begun, as is a stop after this.
        """
        self._life.hand_over(callback)

    def restart(self, callback: Callable[[Any], Any] | None = None) -> None:
        """Restart the applications, then all processes; call `callback(manager)` once the old processes are gone.

        A second restart during the first is ignored.
        """
        self._life.restart(callback)

    def drain(self) -> None:
        """Take the node out of service: end all processes in the reverse order of the jobs, and start no more.

        The desired state of the jobs is kept: `resume` starts their processes again. First `drain` is called on the
        applications, which may return an awaitable, so that clients move to other nodes before processes end. Each
        process keeps running for the `drain_timeout` of its job before it is stopped. A second drain is a no-op.
        """
        self._life.drain()

    def resume(self) -> None:
        """Undo `drain`; a process that is already ending is replaced once it is gone. No-op unless draining."""
        self._life.resume()

    def wakeup(self) -> None:
        """Wake the loop up, from any thread. No-op if the loop is closed."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(lambda: None)
