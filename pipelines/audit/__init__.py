"""How far models get that see no subject, and labels that look wrong."""
