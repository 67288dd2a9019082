"""The topology registry: holds in memory which node runs which job, and answers who asks."""
