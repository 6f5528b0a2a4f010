"""Output for people, a module for each kind of it."""
