"""The first-party sections of a run's report: a file each, in functions that take a `ReportedRun`."""
