"""Images on disk: downloaded blobs, one squashfs file per image, and the names that refer to them."""
