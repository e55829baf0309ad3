"""Matrix capsules with EM routing: layers, routing, losses and network."""
