"""`retrieve bench speed`: what a search costs, beside the least that it could cost."""
