"""Gallery images to descriptors, descriptors to one FAISS index."""

import training  # noqa: F401  # settles the threads before numpy and faiss load
