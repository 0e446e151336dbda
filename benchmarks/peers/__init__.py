"""`retrieve bench peers`: this engine beside what one would pick instead."""
