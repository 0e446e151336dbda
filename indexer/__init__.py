"""Gallery images to descriptors, descriptors to one FAISS index."""
