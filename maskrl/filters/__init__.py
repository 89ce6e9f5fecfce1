"""Group filters, a file each."""
