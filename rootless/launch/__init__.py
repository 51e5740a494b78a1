"""Start the executor and exchange messages with it."""
