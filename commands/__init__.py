"""What every command line shares: running, flags, results, the screen. No mathematics."""
