"""Values that travel between all packages; made of the standard library alone."""
