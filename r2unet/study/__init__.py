"""Studies: several trainings side by side, and what they show."""
