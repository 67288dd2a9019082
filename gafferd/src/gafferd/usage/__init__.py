"""What processes used in the last hour: measured at intervals, kept in memory of bounded size, for charts."""
