"""What every configuration and every model's input needs, whatever the family."""
