"""What is learned, and from what: attribute schema, dataset adapters, models, losses, trainer."""
