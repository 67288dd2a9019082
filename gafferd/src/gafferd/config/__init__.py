"""Settings of the daemon and its configuration file: reading, validation and reload."""
