"""Statistics of tables whose outputs are known only to lie in brackets."""
