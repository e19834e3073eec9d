"""Sources of labelled pictures: one reader for each, none of which decodes."""
