"""The page about a whole recipe: its graph, what every round and step brought, labels, pictures, provenance."""
