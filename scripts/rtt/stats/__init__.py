"""Statistics of the test: intervals, looks, recovery, contrasts. Definitions and reasons: `docs/statistics.md`."""
