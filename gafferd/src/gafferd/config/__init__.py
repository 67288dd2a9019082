"""Settings of the daemon and the configuration file: reading, checking, and applying changes to a running node."""
