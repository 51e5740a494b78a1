"""The one file of an image: described, served by FUSE, read as an archive."""
