"""Bundles: a study as one file, written, opened, checked and rebuilt (docs/bundle.md)."""
