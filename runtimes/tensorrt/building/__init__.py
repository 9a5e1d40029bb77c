"""From an audited model to a plan that is what was asked for, whichever tool builds it."""
