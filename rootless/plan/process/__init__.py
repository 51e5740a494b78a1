"""The program: IDs, capabilities, limits, filters, hooks."""
