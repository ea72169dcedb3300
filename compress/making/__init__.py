"""From a source to a result on disk: what all rules share."""
