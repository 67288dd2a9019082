"""Static sites of plugins: folders, files and their routes."""
