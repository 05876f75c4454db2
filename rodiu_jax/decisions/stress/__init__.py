"""How often given plans break their promises when things turn out worse."""
