"""Unlearning methods: `base.py` says what one is, and each other file holds one."""
