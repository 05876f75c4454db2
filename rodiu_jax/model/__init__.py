"""The model: scenarios, plans, costs, limits and the independent checker. No solver here."""
