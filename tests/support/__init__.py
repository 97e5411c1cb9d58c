"""Helpers that test files share; fixtures are in conftest.py."""
