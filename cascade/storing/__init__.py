"""Where a collection is kept: the record of an image, and stores that outlive a process or not."""
