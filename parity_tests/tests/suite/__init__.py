"""The suite about itself: mutants are caught, claims and recipes hold, lint passes."""
