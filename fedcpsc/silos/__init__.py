"""Making the silos' folders: what is trained, what was adopted, and what is kept of what was there."""
