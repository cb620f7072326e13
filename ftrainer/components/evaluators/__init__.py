"""What must touch the world to judge a state."""
