"""The launcher operations of a container's Plan, their undo notes, and the end of a container."""
