"""Which one deployment to rent for many scenarios."""
