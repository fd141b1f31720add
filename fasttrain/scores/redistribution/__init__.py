"""Labels under what is known of the class counts: priors, the solver and its passes, rounding."""
