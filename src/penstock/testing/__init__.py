"""Helpers for testing: the conformance suite for engines lives in `penstock.testing.conformance`."""
