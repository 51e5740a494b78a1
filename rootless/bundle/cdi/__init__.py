"""Devices of the Container Device Interface: specs of vendors, which edit config.json. Imported only on request."""
