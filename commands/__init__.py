"""What every command line shares, above no mathematics: running, flags, results, the screen."""
