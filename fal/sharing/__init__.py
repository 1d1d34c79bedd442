"""Ways of sharing images out over clients."""
