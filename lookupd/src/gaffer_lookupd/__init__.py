"""The topology registry: keeps track, in memory, of which node runs which job, and serves queries."""
