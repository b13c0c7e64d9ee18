"""Trying a pipeline version in the center, before it is published: the engine's own code answers, once."""
