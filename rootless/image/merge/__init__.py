"""An image's layers merged into one file."""
