"""What tests are made with: pretended devices, comparisons, recorders."""
