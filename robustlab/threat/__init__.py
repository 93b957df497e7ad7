"""What the attacker may do: norm, budget, target (`model`), and the geometry that follows (`geometry`)."""
