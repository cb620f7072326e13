"""Pure reactions to what happens in the loop."""
