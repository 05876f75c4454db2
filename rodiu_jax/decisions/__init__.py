"""From scenarios to decisions: how a plan bears deviations, what robustness costs, what to change."""
