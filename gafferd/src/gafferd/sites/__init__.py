"""Static sites of plugins: directories, files and their routes."""
