"""`gaffer doctor`: checks a node and the lookups."""

from gaffer_client.cli.config import Context
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Command


def doctor(context: Context, args: Arguments) -> int:
    from gaffer_client.cli import doctor

    return doctor.doctor(context, args)


def doctor_of_several(context: Context, args: Arguments, command: Command) -> int:
    """Check the chosen nodes, and the lookups."""
    from gaffer_client.cli import doctor

    return doctor.doctor_of_several(context, args)


COMMANDS = (
    Command(
        "doctor",
        "Check whether a node and the lookups work",
        doctor,
        "node",
        effect="read",
        on_several="doctor:doctor_of_several",
        details="""
            Checks the settings and the key, whether the node and each lookup answer, their versions and clocks, whether
            the node stores changes, has a keeper and is announced, and of a node on this host the limits of open files,
            processes and pipe buffers, the permissions of its state directory and the room on its disk.

            Each line is ok, warn or fail, or skip for what can't be checked from here, with what to do below. The exit
            status is 1 if something fails.
        """,
        examples=("doctor", "doctor --cluster", "doctor -g https://node1.example.com:5000 --json"),
        uses=("--lookupd",),
    ),
)
