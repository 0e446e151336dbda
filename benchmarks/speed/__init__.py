"""`retrieve bench speed`: what every operation costs, beside the least that it could cost."""
