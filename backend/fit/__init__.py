"""From submitted annotations to a version in service: read, decide, build the dataset, train, measure, promote."""
