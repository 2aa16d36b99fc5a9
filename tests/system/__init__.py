"""Tests that span several rooms."""
