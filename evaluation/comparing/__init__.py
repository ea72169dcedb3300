"""Models of any families side by side: opened, timed, and scored on the same images."""
