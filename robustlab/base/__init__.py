"""What everything else stands on, from errors to random draws. It knows no attack, no model and no run."""
