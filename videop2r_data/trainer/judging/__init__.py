"""The perception judge of training: concurrent, cached by content, with a deadline."""
