"""Programs that run inside the peers' own environments, which have nothing of this project."""
