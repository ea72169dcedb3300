"""A collection for other programs: as a Parquet file, a faiss index, or points of Qdrant."""
