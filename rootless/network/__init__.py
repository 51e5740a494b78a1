"""Networks for containers, without root: helper programs of the host, published ports, networks that they share."""
