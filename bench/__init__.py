"""Measurements; nothing here is part of what is installed."""
