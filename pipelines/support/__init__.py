"""What the stages share and no stage is."""
