"""Many machines: workers that read, decode and encode photos for a collection on another one."""
