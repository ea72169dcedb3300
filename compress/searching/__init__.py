"""The search of the joint rule: exits, and combinations of all that may go."""
