"""How well images are found: protocols over a labelled split, and reports of them."""
