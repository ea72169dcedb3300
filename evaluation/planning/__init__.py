"""How many candidates a cascade needs for a target agreement, certified by a test."""
