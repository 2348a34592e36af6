"""What a method's paper leaves to be fitted or settled: SkipVAR's decision models, SparseVAR's open readings."""
