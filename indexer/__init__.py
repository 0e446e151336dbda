"""Gallery images to feature store, feature store to views, views to FAISS indexes."""
