"""Finished files and directories: nothing half-written stays, nothing finished is lost."""
