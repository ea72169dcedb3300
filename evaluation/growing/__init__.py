"""A collection that grows: what it finds meanwhile, and how fast its parts are alone."""
