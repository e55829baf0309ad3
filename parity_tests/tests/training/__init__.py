"""Steps, schedules, resuming, compiled graphs and several processes."""
