"""What processes say of the signals that they ignore."""

# Signals 32 and 33 belong to the C library, which keeps programs from changing what it does with them. Children of
# posix_spawn(3), such as those of GNU make, have them ignored, and so have all that these start.
_RESERVED = 1 << 31 | 1 << 32


def ignored(mask: str) -> int:
    """The ignored signals that a program can change, of a SigIgn of proc_pid_status(5): bit 0 is signal 1."""
    return int(mask, 16) & ~_RESERVED
