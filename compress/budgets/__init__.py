"""What may be spent: settings, budgets, and what sizes and tokens cost under them."""
