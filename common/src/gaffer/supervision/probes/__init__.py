"""Probes of processes: what finds out whether they are ready and live.

`checks` connects and asks over HTTP, `names` looks hosts up, `failures` are why a check has no good result,
`listeners` notices ports that open, `log_lines` searches output, `notifications` receives messages of sd_notify(3),
`prober` decides when.
"""
