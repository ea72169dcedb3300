"""What is solved in closed form: the order of units, repair, alignment, head dimensions."""
