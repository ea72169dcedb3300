"""First stages at equal measured time, of many reports, and their table."""
