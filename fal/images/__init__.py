"""Images: readers, generators, and how near to one another they lie."""
