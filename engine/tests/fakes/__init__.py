"""Stand-ins for what is outside the engine: a registry and a center, both real HTTP servers on loopback."""
