"""Turn evaluations into tables; `docs/statistics.md` defines every number and gives the reasons."""
