"""How a budget is spread over a tower: scores, measured curves, the dynamic programme."""
