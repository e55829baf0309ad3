"""What is made of results: the paper's numbers, tables, charts and pages."""
